{{/*
Names are fixed, not derived from the release: the CRD, the policy and the operator's rights are the cluster's,
so there is one installation per cluster. Helm refuses a second one, since the objects belong to the first.

A component (operator, webhook, gateway) is a dict, made at the top of its template: root, component, name (of its objects,
and the label by which its pods are selected), values, port (that others connect to, if any), metricsPort, probePort (the
port's name, unless it is metrics). Of an object that is no component's there is only root.
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

{{/* An object's labels and annotations; takes more of them as labels and annotations. */}}
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

{{/* A new version of the chart alone doesn't replace pods, hence no helm.sh/chart. */}}
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

{{/* It's asked over HTTP unless `scheme` says else. */}}
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

{{/* The objects that every component has beside its Deployment. */}}
{{- define "devbox-secrets.objects" -}}
{{- if .values.serviceAccount.create }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "devbox-secrets.serviceAccountName" . }}
  namespace: {{ .root.Release.Namespace }}
  {{- include "devbox-secrets.metadata" (merge (dict "annotations" .values.serviceAccount.annotations) .) | nindent 2 }}
# A pod that uses it gets the token only by asking for it.
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
  # Without a list nothing is let through, except the kubelet's probes. An empty list, every kubectl apply would write again.
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
  # A policy can't select the API server. DNS isn't needed.
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

{{/* A security context, without what OpenShift assigns where this is OpenShift. */}}
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
{{- fail "image.repository is not set, and this chart is not from a release: build the image with `make image`, push it to a registry that the cluster can pull from, and pass --set image.repository=REGISTRY/NAME,image.tag=TAG" }}
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

{{/* The Secret of the gateway's certificate, if it has one. */}}
{{- define "devbox-secrets.gatewaySecret" -}}
{{ .Values.gateway.tls.secretName | default (ternary "devbox-secrets-gateway-issued" "" (ne .Values.gateway.tls.issuerRef.name "")) }}
{{- end }}

{{/* Values that fit the schema but make no sense together. */}}
{{- define "devbox-secrets.refuse" -}}
{{- if not .Values.enabled }}
{{- fail "enabled is false, and Helm renders the chart all the same: add `condition: devbox-secrets.enabled` to the dependency in the parent's Chart.yaml; without a parent, don't install the chart" }}
{{- end }}
{{- /* A parent's globals may be for its other charts. */}}
{{- if .Chart.IsRoot }}
{{- $compatibility := .Values.global.compatibility | default dict }}
{{- $unknown := omit .Values.global "imageRegistry" "imagePullSecrets" "nodeSelector" "tolerations" "affinity" "priorityClassName" "compatibility" }}
{{- $unknown = merge $unknown (omit $compatibility "openshift") (omit ($compatibility.openshift | default dict) "adaptSecurityContext") }}
{{- with keys $unknown | sortAlpha }}
{{- fail (printf "global has %s, which this chart doesn't use: remove it" (join " and " .)) }}
{{- end }}
{{- end }}
{{- if not .Values.devboxes.selectors }}
{{- fail "devboxes.selectors is empty, so no pod would get secrets: list at least one label selector, or leave the value out for the default ones" }}
{{- end }}
{{- $selectors := list }}
{{- range $i, $entry := .Values.devboxes.selectors }}
{{- $selector := dict "matchLabels" ($entry.matchLabels | default dict) "matchExpressions" ($entry.matchExpressions | default list) }}
{{- if not (or $selector.matchLabels $selector.matchExpressions) }}
{{- fail (printf "devboxes.selectors[%d] is empty and would match every pod of the cluster: give it matchLabels or matchExpressions" $i) }}
{{- end }}
{{- if has $selector $selectors }}
{{- fail (printf "devboxes.selectors[%d] has the same labels as an earlier one: remove one of them" $i) }}
{{- end }}
{{- $selectors = append $selectors $selector }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.service.enabled) }}
{{- fail "metrics.serviceMonitor.enabled needs a Service to scrape: set metrics.service.enabled to true as well" }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled }}
{{- fail "metrics.serviceMonitor.enabled and metrics.podMonitor.enabled would scrape every pod twice: set one of them to false" }}
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
{{- with .Values.gateway }}
{{- if and (or .ingress.enabled .httpRoute.enabled) (not .enabled) }}
{{- fail "gateway.ingress and gateway.httpRoute lead to the gateway, which isn't installed: set gateway.enabled to true as well" }}
{{- end }}
{{- if and .ingress.enabled (not .ingress.hosts) }}
{{- fail "gateway.ingress.enabled needs a name to serve: list at least one in gateway.ingress.hosts" }}
{{- end }}
{{- if and .httpRoute.enabled (not .httpRoute.parentRefs) }}
{{- fail "gateway.httpRoute.enabled needs a Gateway to be attached to: name it in gateway.httpRoute.parentRefs" }}
{{- end }}
{{- end }}
{{- $own := include "devbox-secrets.labels" (dict "root" . "component" "any") | fromYaml | merge (dict "helm.sh/chart" "") }}
{{- $labels := dict "commonLabels" .Values.commonLabels }}
{{- range $prefix, $component := dict "" .Values "webhook." .Values.webhook "gateway." .Values.gateway }}
{{- $_ := set $labels (print $prefix "podLabels") $component.podLabels }}
{{- if not (or $component.serviceAccount.create $component.serviceAccount.name) }}
{{- fail (printf "%sserviceAccount.create is false: set %sserviceAccount.name to the name of an existing one" $prefix $prefix) }}
{{- end }}
{{- end }}
{{- range $where, $given := $labels }}
{{- range $label, $_ := $given }}
{{- if hasKey $own $label }}
{{- fail (printf "%s sets %s, which is the chart's own: remove it" $where $label) }}
{{- end }}
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

{{/* Whether a pod gets files, in CEL: a constant where all selectors say the same. */}}
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

{{/* A label selector in CEL. */}}
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

{{/* Whether a pod gets files in place of all variables, in CEL: as its selectors say, unless the annotation env is there. */}}
{{- define "devbox-secrets.filesAlone" -}}
{{- $asFiles := include "devbox-secrets.asFiles" . }}
{{- if eq $asFiles "false" -}}
false
{{- else -}}
!("devbox-secrets.dev/env" in object.metadata.?annotations.orValue({})) && ({{ $asFiles }})
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
{{/* Where the files are, unless the annotation mount says otherwise. */}}
{{- define "devbox-secrets.filesPath" -}}/var/run/secrets/devbox-secrets.dev{{- end }}
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
  size(c[?("devbox-secrets.dev/env" in object.metadata.?annotations.orValue({}) ? "env" : "envFrom")].orValue([]))
).sum() + (
  "devbox-secrets.dev/mount" in object.metadata.?annotations.orValue({}) || {{ include "devbox-secrets.filesAlone" . }}
  ? size(object.spec.?volumes.orValue([])) +
    (object.spec.containers + object.spec.?initContainers.orValue([])).map(c, size(c.?volumeMounts.orValue([]))).sum()
  : 0
) <=
{{- end }}
