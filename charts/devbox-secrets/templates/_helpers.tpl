{{/*
Names are fixed, not derived from the release: the CRD, the policy and the operator's rights are the cluster's,
so there is one installation per cluster. Helm refuses a second one, since the objects belong to the first.
*/}}
{{- define "devbox-secrets.labels" -}}
{{ include "devbox-secrets.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "devbox-secrets.selectorLabels" -}}
app.kubernetes.io/name: devbox-secrets
{{- end }}

{{/* Of the gateway's pods: others than the operator's, whose Deployment and Service must not select them. */}}
{{- define "devbox-secrets.gatewayLabels" -}}
app.kubernetes.io/name: devbox-secrets-gateway
{{- end }}

{{- define "devbox-secrets.image" -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | replace ":@" "@" }}
{{- end }}

{{/* Values that fit the schema but make no sense together. */}}
{{- define "devbox-secrets.refuse" -}}
{{- if not .Values.devboxes.selectors }}
{{- fail "devboxes.selectors is empty, so no pod would get secrets: list at least one label selector, or leave the value out for the default ones" }}
{{- end }}
{{- range $i, $selector := .Values.devboxes.selectors }}
{{- if not (or $selector.matchLabels $selector.matchExpressions) }}
{{- fail (printf "devboxes.selectors[%d] is empty and would match every pod of the cluster: give it matchLabels or matchExpressions" $i) }}
{{- end }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.service.enabled) }}
{{- fail "metrics.serviceMonitor.enabled needs a Service to scrape: set metrics.service.enabled to true as well" }}
{{- end }}
{{- range $label, $_ := include "devbox-secrets.labels" . | fromYaml }}
{{- if hasKey $.Values.podLabels $label }}
{{- fail (printf "podLabels sets %s, which is the chart's own: remove it" $label) }}
{{- end }}
{{- end }}
{{- end }}

{{/* What both kinds of policy match, and how. Written out in full: what is left to the API server's defaults,
every kubectl apply would write anew. */}}
{{- define "devbox-secrets.pods" -}}
resourceRules:
  - apiGroups: [""]
    apiVersions: [v1]
    resources: [pods]
    operations: [CREATE]
    scope: "*"
{{- end }}

{{/* One binding for each selector, named after it: when the list changes, the bindings of the others are not touched. */}}
{{- define "devbox-secrets.bindings" -}}
{{- range .context.Values.devboxes.selectors }}
---
apiVersion: admissionregistration.k8s.io/v1
kind: {{ $.kind }}Binding
metadata:
  name: {{ $.policy }}-{{ toJson . | sha256sum | trunc 8 }}
  labels:
    {{- include "devbox-secrets.labels" $.context | nindent 4 }}
spec:
  policyName: {{ $.policy }}
  {{- if eq $.kind "ValidatingAdmissionPolicy" }}
  validationActions: [Deny]
  {{- end }}
  matchResources:
    objectSelector:
      {{- toYaml . | nindent 6 }}
{{- end }}
{{- end }}

{{/* What the annotations may hold, as regular expressions: an entry of env, all of env, and mount. */}}
{{- define "devbox-secrets.entry" -}}
\s*[A-Za-z_][A-Za-z0-9_]{0,252}\s*(=\s*[A-Za-z_][A-Za-z0-9_]{0,252}\s*)?
{{- end }}
{{- define "devbox-secrets.entries" -}}
^{{ include "devbox-secrets.entry" . }}(,{{ include "devbox-secrets.entry" . }})*$
{{- end }}
{{/* So many entries at most: the API server ends an expression that takes too long. */}}
{{- define "devbox-secrets.most" -}}100{{- end }}
{{- define "devbox-secrets.path" -}}
^(/[^/:\s[:cntrl:]]+)+$
{{- end }}
