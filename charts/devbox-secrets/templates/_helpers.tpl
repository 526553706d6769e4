{{/*
Names are fixed and not derived from the release. There is one installation per cluster, because the CRD, the policies and
the operator's permissions are cluster-wide. Helm rejects a second one, because the objects belong to the first.

A component (operator, webhook, gateway) is a dict, created at the top of its template: root, component, name (of its
objects, and the label that selects its pods), values, port (for clients, if any), metricsPort, probePort (the port's name,
unless it is metrics). Objects without a component have only root.
*/}}
{{- define "devbox-secrets.labels" -}}
app.kubernetes.io/name: devbox-secrets
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
app.kubernetes.io/part-of: devbox-secrets
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/* Labels and annotations of an object; additional ones are passed as labels and annotations. */}}
{{- define "devbox-secrets.metadata" -}}
{{- $chart := dict "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
labels:
  {{- merge (dict) (.labels | default dict) (include "devbox-secrets.labels" . | fromYaml) $chart (.root.Values.commonLabels | default dict) | toYaml | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) (.root.Values.commonAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "devbox-secrets.selectorLabels" -}}
app.kubernetes.io/name: {{ .name }}
{{- end }}

{{/* Without helm.sh/chart, so that a new chart version doesn't replace pods by itself. */}}
{{- define "devbox-secrets.podMetadata" -}}
{{- $own := merge (include "devbox-secrets.selectorLabels" . | fromYaml) (include "devbox-secrets.labels" . | fromYaml) -}}
labels:
  {{- merge $own (.values.podLabels | default dict) (.root.Values.commonLabels | default dict) | toYaml | nindent 2 }}
annotations:
  {{- merge (dict) (.values.podAnnotations | default dict) (dict "kubectl.kubernetes.io/default-container" .component) | toYaml | nindent 2 }}
{{- end }}

{{/* The beginning of a Deployment's spec. */}}
{{- define "devbox-secrets.deployment" -}}
replicas: {{ .values.replicaCount }}
revisionHistoryLimit: {{ .values.revisionHistoryLimit }}
{{- with .values.strategy }}
strategy:
  {{- toYaml . | nindent 2 }}
{{- end }}
selector:
  matchLabels:
    {{- include "devbox-secrets.selectorLabels" . | nindent 4 }}
{{- end }}

{{- define "devbox-secrets.pod" -}}
{{- $global := .root.Values.global -}}
serviceAccountName: {{ include "devbox-secrets.serviceAccountName" . }}
enableServiceLinks: false
securityContext:
  {{- include "devbox-secrets.securityContext" (merge (dict "context" .values.podSecurityContext) .) | nindent 2 }}
{{- include "devbox-secrets.imagePullSecrets" .root }}
{{- with merge (dict) (.values.nodeSelector | default dict) ($global.nodeSelector | default dict) }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations | default $global.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity | default $global.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName | default $global.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- $selector := dict "labelSelector" (dict "matchLabels" (include "devbox-secrets.selectorLabels" $ | fromYaml)) }}
  {{- range . }}
  - {{ merge (dict) . $selector | toYaml | nindent 4 | trim }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Probes use HTTP unless `scheme` is set. */}}
{{- define "devbox-secrets.container" -}}
image: {{ include "devbox-secrets.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: {{ prepend (.values.extraArgs | default list) .component | toJson }}
{{- range $probe, $path := dict "readinessProbe" "/readyz" "livenessProbe" "/healthz" }}
{{ $probe }}:
  httpGet:
    path: {{ $path }}
    port: {{ $.probePort | default "metrics" }}
    {{- with $.scheme }}
    scheme: {{ . }}
    {{- end }}
  {{- with get $.values $probe }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
securityContext:
  {{- include "devbox-secrets.securityContext" (merge (dict "context" .values.securityContext) .) | nindent 2 }}
{{- with .values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The objects that every component has in addition to its Deployment. */}}
{{- define "devbox-secrets.objects" -}}
{{- if .values.serviceAccount.create }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "devbox-secrets.serviceAccountName" . }}
  namespace: {{ .root.Release.Namespace }}
  {{- include "devbox-secrets.metadata" (merge (dict "annotations" .values.serviceAccount.annotations) .) | nindent 2 }}
# Pods have to request the token explicitly.
automountServiceAccountToken: false
{{- end }}
{{- with .values.podDisruptionBudget }}
{{- if .enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $.name }}
  namespace: {{ $.root.Release.Namespace }}
  {{- include "devbox-secrets.metadata" $ | nindent 2 }}
spec:
  {{- omit . "enabled" (hasKey . "minAvailable" | ternary "maxUnavailable" "") | toYaml | nindent 2 }}
  selector:
    matchLabels:
      {{- include "devbox-secrets.selectorLabels" $ | nindent 6 }}
{{- end }}
{{- end }}
{{- with .values.networkPolicy }}
{{- if .enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $.name }}
  namespace: {{ $.root.Release.Namespace }}
  {{- include "devbox-secrets.metadata" $ | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "devbox-secrets.selectorLabels" $ | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- $rules := list }}
  {{- with $.port }}
  {{- $rules = append $rules (dict "port" . "from" $.values.networkPolicy.from) }}
  {{- end }}
  {{- if or $.root.Values.metrics.service.enabled $.root.Values.metrics.podMonitor.enabled }}
  {{- $rules = append $rules (dict "port" $.metricsPort "from" .metricsFrom) }}
  {{- end }}
  # Without rules, only the kubelet's probes are allowed. The field is omitted, because every kubectl apply would write an
  # empty list again.
  {{- with $rules }}
  ingress:
    {{- range . }}
    - ports:
        - protocol: TCP
          port: {{ .port }}
      {{- with .from }}
      from:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- end }}
  {{- end }}
  {{- with .apiServerPorts }}
  # A NetworkPolicy can't select the API server. DNS isn't needed.
  egress:
    - ports:
        {{- range . }}
        - protocol: TCP
          port: {{ . }}
        {{- end }}
      {{- with $.values.networkPolicy.apiServerCIDRs }}
      to:
        {{- range . }}
        - ipBlock:
            cidr: {{ . | quote }}
        {{- end }}
      {{- end }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "devbox-secrets.serviceAccountName" -}}
{{ .values.serviceAccount.name | default .name }}
{{- end }}

{{/* A security context; on OpenShift, without the fields that OpenShift assigns. */}}
{{- define "devbox-secrets.securityContext" -}}
{{- $adapt := dig "compatibility" "openshift" "adaptSecurityContext" "auto" .root.Values.global }}
{{- if or (eq $adapt "force") (and (eq $adapt "auto") (.root.Capabilities.APIVersions.Has "security.openshift.io/v1")) -}}
{{ omit (.context | default dict) "runAsUser" "runAsGroup" "fsGroup" | toYaml }}
{{- else -}}
{{ .context | default dict | toYaml }}
{{- end }}
{{- end }}

{{- define "devbox-secrets.image" -}}
{{- $image := .Values.image }}
{{- if not $image.repository }}
{{- fail "image.repository is not set, and this chart is not from a release; build the image with `make image`, push it to a registry that the cluster can pull from, and pass --set image.repository=REGISTRY/NAME,image.tag=TAG" }}
{{- end }}
{{- $tag := $image.tag | default (ternary "" .Chart.AppVersion (ne $image.digest "")) }}
{{- with .Values.global.imageRegistry | default $image.registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- with $tag }}:{{ . }}{{ end }}
{{- with $image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "devbox-secrets.imagePullSecrets" -}}
{{- $names := list }}
{{- range concat (.Values.global.imagePullSecrets | default list) (.Values.imagePullSecrets | default list) }}
{{- if kindIs "map" . }}
{{- $names = append $names .name | uniq }}
{{- else }}
{{- $names = append $names . | uniq }}
{{- end }}
{{- end }}
{{- with $names }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The Secret with the gateway's certificate, if any. */}}
{{- define "devbox-secrets.gatewaySecret" -}}
{{ .Values.gateway.tls.secretName | default (ternary "devbox-secrets-gateway-issued" "" (ne .Values.gateway.tls.issuerRef.name "")) }}
{{- end }}

{{/* Rejects combinations of values that the schema allows but that make no sense. */}}
{{- define "devbox-secrets.validate" -}}
{{- if not .Values.enabled }}
{{- fail "enabled is false, but the chart is rendered; add `condition: devbox-secrets.enabled` to the dependency in the parent's Chart.yaml, or if there is no parent chart, don't install this chart" }}
{{- end }}
{{- /* A parent chart's globals may be for other charts. */}}
{{- if .Chart.IsRoot }}
{{- $compatibility := .Values.global.compatibility | default dict }}
{{- $unknown := omit .Values.global "imageRegistry" "imagePullSecrets" "nodeSelector" "tolerations" "affinity" "priorityClassName" "compatibility" }}
{{- $unknown = merge $unknown (omit $compatibility "openshift") (omit ($compatibility.openshift | default dict) "adaptSecurityContext") }}
{{- with keys $unknown | sortAlpha }}
{{- fail (printf "unknown values in global: %s; remove them" (join ", " .)) }}
{{- end }}
{{- end }}
{{- if not .Values.devboxes.selectors }}
{{- fail "devboxes.selectors is empty, so no pod would get secrets; add a label selector, or omit the value to use the defaults" }}
{{- end }}
{{- $selectors := list }}
{{- range $i, $entry := .Values.devboxes.selectors }}
{{- $selector := dict "matchLabels" ($entry.matchLabels | default dict) "matchExpressions" ($entry.matchExpressions | default list) }}
{{- if not (or $selector.matchLabels $selector.matchExpressions) }}
{{- fail (printf "devboxes.selectors[%d] is empty and would match all pods in the cluster; set matchLabels or matchExpressions" $i) }}
{{- end }}
{{- if has $selector $selectors }}
{{- fail (printf "devboxes.selectors[%d] has the same labels as an earlier selector; remove one of them" $i) }}
{{- end }}
{{- $selectors = append $selectors $selector }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.service.enabled) }}
{{- fail "metrics.serviceMonitor.enabled requires a Service; set metrics.service.enabled to true" }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled }}
{{- fail "metrics.serviceMonitor.enabled and metrics.podMonitor.enabled would scrape every pod twice; set one of them to false" }}
{{- end }}
{{- if and (eq .Values.injection.method "policy") (eq (include "devbox-secrets.lacksPolicy" .) "true") }}
{{- fail "injection.method is policy, but the API server doesn't support MutatingAdmissionPolicy (admissionregistration.k8s.io/v1); set it to auto or webhook" }}
{{- end }}
{{- with .Values.webhook }}
{{- if and (eq .certificate "cert-manager") (not .issuerRef.name) }}
{{- fail "webhook.certificate is cert-manager, which requires an issuer; set webhook.issuerRef.name" }}
{{- end }}
{{- if and (ne .certificate "cert-manager") .issuerRef.name }}
{{- fail "webhook.issuerRef requires webhook.certificate cert-manager; set that, or remove webhook.issuerRef" }}
{{- end }}
{{- if and (eq .certificate "secret") (not (and .secretName .caBundle)) }}
{{- fail "webhook.certificate is secret; set webhook.secretName to its name, and webhook.caBundle to the CA certificate that signed the certificate in it" }}
{{- end }}
{{- if and (ne .certificate "secret") (or .secretName .caBundle) }}
{{- fail "webhook.secretName and webhook.caBundle require webhook.certificate secret; set that, or remove them" }}
{{- end }}
{{- end }}
{{- with .Values.gateway.tls }}
{{- if and .secretName .issuerRef.name }}
{{- fail "gateway.tls.secretName and gateway.tls.issuerRef can't be set together; remove one of them" }}
{{- end }}
{{- if and .dnsNames (not .issuerRef.name) }}
{{- fail "gateway.tls.dnsNames requires a certificate from cert-manager; set gateway.tls.issuerRef.name, or remove gateway.tls.dnsNames" }}
{{- end }}
{{- end }}
{{- with .Values.gateway }}
{{- if and (or .ingress.enabled .httpRoute.enabled) (not .enabled) }}
{{- fail "gateway.ingress and gateway.httpRoute require the gateway; set gateway.enabled to true" }}
{{- end }}
{{- if and .ingress.enabled (not .ingress.hosts) }}
{{- fail "gateway.ingress.enabled requires a host name; add one to gateway.ingress.hosts" }}
{{- end }}
{{- if and .httpRoute.enabled (not .httpRoute.parentRefs) }}
{{- fail "gateway.httpRoute.enabled requires a Gateway; add it to gateway.httpRoute.parentRefs" }}
{{- end }}
{{- end }}
{{- $own := include "devbox-secrets.labels" (dict "root" . "component" "any") | fromYaml | merge (dict "helm.sh/chart" "") }}
{{- $labels := dict "commonLabels" .Values.commonLabels }}
{{- range $prefix, $component := dict "" .Values "webhook." .Values.webhook "gateway." .Values.gateway }}
{{- $_ := set $labels (print $prefix "podLabels") $component.podLabels }}
{{- if not (or $component.serviceAccount.create $component.serviceAccount.name) }}
{{- fail (printf "%sserviceAccount.create is false; set %sserviceAccount.name to an existing ServiceAccount" $prefix $prefix) }}
{{- end }}
{{- end }}
{{- range $where, $given := $labels }}
{{- range $label, $_ := $given }}
{{- if hasKey $own $label }}
{{- fail (printf "%s sets %s, which the chart sets itself; remove it" $where $label) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The match rules of both kinds of policies. They are written out in full, because every kubectl apply would write
fields again that the API server defaults. */}}
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
# The policy devbox-secrets-annotations rejects larger pods.
- name: not-too-large
  expression: |-
    {{- include "devbox-secrets.fits" . | nindent 4 }} {{ include "devbox-secrets.mostItems" . }}
{{- end }}

{{/* What injects the secrets: policy or webhook. */}}
{{- define "devbox-secrets.injection" -}}
{{- if ne .Values.injection.method "auto" -}}
{{ .Values.injection.method }}
{{- else if eq (include "devbox-secrets.lacksPolicy" .) "true" -}}
webhook
{{- else -}}
policy
{{- end }}
{{- end }}

{{/* Whether the API server doesn't support MutatingAdmissionPolicy. With a cluster, Capabilities lists kinds such as v1/Pod;
without one (helm template), only the Kubernetes version is known. */}}
{{- define "devbox-secrets.lacksPolicy" -}}
{{- if .Capabilities.APIVersions.Has "v1/Pod" -}}
{{ not (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy") }}
{{- else -}}
{{ semverCompare "<1.36.0-0" .Capabilities.KubeVersion.Version }}
{{- end }}
{{- end }}

{{/* One binding for each selector, with a name derived from it, so that changes to the list don't affect other bindings. */}}
{{- define "devbox-secrets.bindings" -}}
{{- range .context.Values.devboxes.selectors }}
{{- $selector := omit . "as" }}
---
apiVersion: admissionregistration.k8s.io/v1
kind: {{ $.kind }}Binding
metadata:
  name: {{ $.policy }}-{{ toJson $selector | sha256sum | trunc 8 }}
  {{- include "devbox-secrets.metadata" (dict "root" $.context) | nindent 2 }}
spec:
  policyName: {{ $.policy }}
  {{- if eq $.kind "ValidatingAdmissionPolicy" }}
  validationActions: [Deny]
  {{- end }}
  matchResources:
    objectSelector:
      {{- toYaml $selector | nindent 6 }}
{{- end }}
{{- end }}

{{/* A CEL expression for whether a pod gets files; a constant if it is the same for all selectors. */}}
{{- define "devbox-secrets.asFiles" -}}
{{- $selectors := list }}
{{- range .Values.devboxes.selectors }}
{{- if eq (.as | default $.Values.injection.as) "files" }}
{{- $selectors = append $selectors (include "devbox-secrets.matches" .) }}
{{- end }}
{{- end }}
{{- if not $selectors -}}
false
{{- else if eq (len $selectors) (len .Values.devboxes.selectors) -}}
true
{{- else -}}
{{ join " || " $selectors }}
{{- end }}
{{- end }}

{{/* A label selector as a CEL expression. */}}
{{- define "devbox-secrets.matches" -}}
{{- $terms := list }}
{{- range $key, $value := .matchLabels }}
{{- $terms = append $terms (printf "object.metadata.?labels[?%s].optMap(value, value == %s).orValue(false)" (toJson $key) (toJson $value)) }}
{{- end }}
{{- range .matchExpressions }}
{{- $not := has .operator (list "NotIn" "DoesNotExist") | ternary "!" "" }}
{{- $condition := has .operator (list "In" "NotIn") | ternary (printf "value in %s" (toJson .values)) "true" }}
{{- $terms = append $terms (printf "%sobject.metadata.?labels[?%s].optMap(value, %s).orValue(false)" $not (toJson .key) $condition) }}
{{- end }}
{{- join " && " $terms }}
{{- end }}

{{/* A CEL expression for whether a pod gets files instead of variables: by its selectors, unless the annotation env is set. */}}
{{- define "devbox-secrets.filesOnly" -}}
{{- $asFiles := include "devbox-secrets.asFiles" . }}
{{- if eq $asFiles "false" -}}
false
{{- else -}}
!("devbox-secrets.dev/env" in object.metadata.?annotations.orValue({})) && ({{ $asFiles }})
{{- end }}
{{- end }}

{{/*
Regular expressions for the annotations: an entry of env, and mount. They don't limit the length of a name: with a limit,
the API server takes a hundred times as long.
*/}}
{{- define "devbox-secrets.entry" -}}
^\s*[A-Za-z_][A-Za-z0-9_]*\s*(=\s*[A-Za-z_][A-Za-z0-9_]*\s*)?$
{{- end }}
{{- define "devbox-secrets.path" -}}
^(/[^/:\s[:cntrl:]]+)+$
{{- end }}
{{/*
Limits that keep the cost of any pod for the API server to milliseconds (benchmarks/policies.py). The webhook has the same
limits.
*/}}
{{- define "devbox-secrets.most" -}}100{{- end }}
{{- define "devbox-secrets.mostOfName" -}}253{{- end }}
{{- define "devbox-secrets.mostCharacters" -}}60000{{- end }}
{{/* Entries of the annotation env times containers. */}}
{{- define "devbox-secrets.mostAdded" -}}300{{- end }}
{{/* The default path of the files; the annotation mount overrides it. */}}
{{- define "devbox-secrets.filesPath" -}}/var/run/secrets/devbox-secrets.dev{{- end }}
{{/* The maximum length of a path in Linux. */}}
{{- define "devbox-secrets.mostOfPath" -}}4095{{- end }}
{{- define "devbox-secrets.mostContainers" -}}100{{- end }}
{{- define "devbox-secrets.mostAnnotations" -}}1000{{- end }}
{{- define "devbox-secrets.mostItems" -}}500{{- end }}
{{/* Whether a pod is within the limits; callers append the limit of the items, or a multiple of it. Containers are counted
first, so that only a limited number is examined, and of these only the lists that get new entries. */}}
{{- define "devbox-secrets.fits" -}}
size(object.metadata.?annotations.orValue({})) <= {{ include "devbox-secrets.mostAnnotations" . }} &&
size(object.spec.containers) + size(object.spec.?initContainers.orValue([])) <= {{ include "devbox-secrets.mostContainers" . }} &&
(object.spec.containers + object.spec.?initContainers.orValue([])).map(c,
  size(c[?("devbox-secrets.dev/env" in object.metadata.?annotations.orValue({}) ? "env" : "envFrom")].orValue([]))
).sum() + (
  "devbox-secrets.dev/mount" in object.metadata.?annotations.orValue({}) || {{ include "devbox-secrets.filesOnly" . }}
  ? size(object.spec.?volumes.orValue([])) +
    (object.spec.containers + object.spec.?initContainers.orValue([])).map(c, size(c.?volumeMounts.orValue([]))).sum()
  : 0
) <=
{{- end }}
