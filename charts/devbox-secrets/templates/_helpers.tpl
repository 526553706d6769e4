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
