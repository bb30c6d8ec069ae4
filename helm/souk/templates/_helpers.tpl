{{- define "souk.prefix" -}}
{{- .Values.mesh.names.prefix | default (printf "%s-" .Release.Name) -}}
{{- end }}

{{- define "souk.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* Labels of everything. */}}
{{- define "souk.labels" -}}
app.kubernetes.io/part-of: {{ include "souk.prefix" . | trimSuffix "-" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* What a service's pods are selected by. Takes (list root service). */}}
{{- define "souk.selector" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end }}

{{/* A pod that may do nothing that it need not. There is no value to loosen it. */}}
{{- define "souk.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "souk.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* A service's settings: `defaults`, and in their place what the service has of its own. As JSON. Takes (list root service). */}}
{{- define "souk.service" -}}
{{- $values := (index . 0).Values -}}
{{- mergeOverwrite (deepCopy $values.defaults) (deepCopy (get $values.services (index . 1) | default dict)) | toJson -}}
{{- end }}

{{/* On which nodes a pod runs, and from where its image comes. Takes (list root settings). */}}
{{- define "souk.placement" -}}
{{- $settings := index . 1 -}}
{{- with (index . 0).Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
{{- with get $settings $key }}
{{ $key }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}

{{/* The environment that services and jobs share: where tables are. Takes (list root service). */}}
{{- define "souk.databaseEnv" -}}
- name: PASSWORD
  valueFrom: {secretKeyRef: {name: {{ (index . 0).Values.secrets.database }}, key: {{ index . 1 }}}}
- {name: SOUK_DATABASE_URL, value: {{ (index . 0).Values.databaseUrl | quote }}}
{{- end }}

{{/* The services that have tables. */}}
{{- define "souk.withTables" -}}
{{- toJson (without (keys .Values.services | sortAlpha) "ops") -}}
{{- end }}

{{/* How the process knows its callers in the mesh: by the certificates that the proxy in its pod saw. A waypoint is no such proxy: there, tokens tell. */}}
{{- define "souk.meshIdentity" -}}
{{- with .Values.mesh }}
{{- if and .enabled (eq .dataPlane "sidecar") }}
- {name: SOUK_MESH_IDENTITY, value: "spiffe://{{ .names.trustDomain }}/ns/{{ $.Release.Namespace }}/sa/{{ include "souk.prefix" $ }}{service}"}
{{- if .gateway.enabled }}
- {name: SOUK_MESH_GATEWAY, value: "spiffe://{{ .names.trustDomain }}/ns/{{ .gateway.namespace }}/sa/{{ .gateway.serviceAccount }}"}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
