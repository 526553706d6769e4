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

{{/* The Secret of the gateway's certificate, if it has one. */}}
{{- define "devbox-secrets.gatewaySecret" -}}
{{ .Values.gateway.tls.secretName | default (ternary "devbox-secrets-gateway-issued" "" (ne .Values.gateway.tls.issuerRef.name "")) }}
{{- end }}

{{- define "devbox-secrets.image" -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | replace ":@" "@" | quote }}
{{- end }}

{{/* What every program of ours has alike, in its container and in its pod. It's asked over HTTP unless `scheme` says else. */}}
{{- define "devbox-secrets.container" -}}
image: {{ include "devbox-secrets.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
readinessProbe:
  periodSeconds: 2
  httpGet:
    path: /readyz
    port: http
    {{- with .scheme }}
    scheme: {{ . }}
    {{- end }}
livenessProbe:
  httpGet:
    path: /healthz
    port: http
    {{- with .scheme }}
    scheme: {{ . }}
    {{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- define "devbox-secrets.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Where pods run; takes the labels of those that should be on different nodes. */}}
{{- define "devbox-secrets.placement" -}}
{{- with .context.Values.imagePullSecrets -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{ end }}
{{- with .context.Values.nodeSelector -}}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{ end }}
{{- with .context.Values.tolerations -}}
tolerations:
  {{- toYaml . | nindent 2 }}
{{ end -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- .labels | nindent 8 }}
{{- with .context.Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .context.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
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
{{- if and (eq .Values.injection.method "policy") (eq (include "devbox-secrets.lacksPolicy" .) "true") }}
{{- fail "injection.method is policy, but the API server has no MutatingAdmissionPolicy (admissionregistration.k8s.io/v1): set it to auto or webhook" }}
{{- end }}
{{- with .Values.webhook }}
{{- if and (eq .certificate "cert-manager") (not .issuerRef.name) }}
{{- fail "webhook.certificate is cert-manager, which needs to know who issues: set webhook.issuerRef.name" }}
{{- end }}
{{- if and (ne .certificate "cert-manager") .issuerRef.name }}
{{- fail "webhook.issuerRef is for webhook.certificate cert-manager: set that, or remove it" }}
{{- end }}
{{- if and (eq .certificate "secret") (not (and .secretName .caBundle)) }}
{{- fail "webhook.certificate is secret: set webhook.secretName to its name, and webhook.caBundle to the certificate that vouches for what is in it" }}
{{- end }}
{{- if and (ne .certificate "secret") (or .secretName .caBundle) }}
{{- fail "webhook.secretName and webhook.caBundle are for webhook.certificate secret: set that, or remove them" }}
{{- end }}
{{- end }}
{{- with .Values.gateway.tls }}
{{- if and .secretName .issuerRef.name }}
{{- fail "gateway.tls.secretName names a certificate that is there, gateway.tls.issuerRef who issues one: remove one of them" }}
{{- end }}
{{- if and .dnsNames (not .issuerRef.name) }}
{{- fail "gateway.tls.dnsNames are for a certificate that cert-manager issues: set gateway.tls.issuerRef.name, or remove them" }}
{{- end }}
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
- apiGroups: [""]
  apiVersions: [v1]
  resources: [pods]
  operations: [CREATE]
  scope: "*"
{{- end }}

{{- define "devbox-secrets.switchedOn" -}}
- name: not-switched-off
  expression: object.metadata.?annotations["devbox-secrets.dev/inject"].orValue("true") != "false"
# What is larger is refused by the policy devbox-secrets-annotations.
- name: not-too-large
  expression: |-
    {{- include "devbox-secrets.fits" . | nindent 4 }} {{ include "devbox-secrets.mostItems" . }}
{{- end }}

{{/* What changes devboxes: policy or webhook. */}}
{{- define "devbox-secrets.injection" -}}
{{- if ne .Values.injection.method "auto" -}}
{{ .Values.injection.method }}
{{- else if eq (include "devbox-secrets.lacksPolicy" .) "true" -}}
webhook
{{- else -}}
policy
{{- end }}
{{- end }}

{{/* Whether the API server is known not to serve MutatingAdmissionPolicy. A cluster that was asked names kinds, such as
v1/Pod; without one (helm template) there is only a version to go by. */}}
{{- define "devbox-secrets.lacksPolicy" -}}
{{- if .Capabilities.APIVersions.Has "v1/Pod" -}}
{{ not (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy") }}
{{- else -}}
{{ semverCompare "<1.36.0-0" .Capabilities.KubeVersion.Version }}
{{- end }}
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

{{/*
What the annotations may hold, as regular expressions: an entry of env, and mount. How long a name is is no part of it:
with a bound in it the API server takes a hundred times as long.
*/}}
{{- define "devbox-secrets.entry" -}}
^\s*[A-Za-z_][A-Za-z0-9_]*\s*(=\s*[A-Za-z_][A-Za-z0-9_]*\s*)?$
{{- end }}
{{- define "devbox-secrets.path" -}}
^(/[^/:\s[:cntrl:]]+)+$
{{- end }}
{{/*
What is looked at is bounded, so that no pod costs the API server more than milliseconds (benchmarks/policies.py). The
webhook has the same bounds.
*/}}
{{- define "devbox-secrets.most" -}}100{{- end }}
{{- define "devbox-secrets.mostOfName" -}}253{{- end }}
{{- define "devbox-secrets.mostCharacters" -}}60000{{- end }}
{{/* Entries of the annotation env times containers. */}}
{{- define "devbox-secrets.mostAdded" -}}300{{- end }}
{{/* The longest path that Linux takes. */}}
{{- define "devbox-secrets.mostOfPath" -}}4095{{- end }}
{{- define "devbox-secrets.mostContainers" -}}100{{- end }}
{{- define "devbox-secrets.mostAnnotations" -}}1000{{- end }}
{{- define "devbox-secrets.mostItems" -}}500{{- end }}
{{/* Whether a pod has no more of it all than that, or than a multiple of the items. Containers are counted first: only
so many are looked into, and there only at the lists that something is added to. */}}
{{- define "devbox-secrets.fits" -}}
size(object.metadata.?annotations.orValue({})) <= {{ include "devbox-secrets.mostAnnotations" . }} &&
size(object.spec.containers) + size(object.spec.?initContainers.orValue([])) <= {{ include "devbox-secrets.mostContainers" . }} &&
(object.spec.containers + object.spec.?initContainers.orValue([])).map(c,
  size(c[?("devbox-secrets.dev/env" in object.metadata.?annotations.orValue({}) ? "env" : "envFrom")].orValue([])) +
  ("devbox-secrets.dev/mount" in object.metadata.?annotations.orValue({}) ? size(c.?volumeMounts.orValue([])) : 0)
).sum() +
("devbox-secrets.dev/mount" in object.metadata.?annotations.orValue({}) ? size(object.spec.?volumes.orValue([])) : 0) <=
{{- end }}
