{{/* The policies of all methods and doors, as the plugin wrote them. */}}
{{- define "mesh.policies" -}}
{{- .Files.Get "generated/policies.json" | required "generated/policies.json is missing from the mesh chart: npm run generate makes it." -}}
{{- end }}

{{- define "mesh.prefix" -}}
{{- .Values.names.prefix | default (printf "%s-" .Release.Name) -}}
{{- end }}

{{- define "mesh.namespace" -}}
{{- .Values.names.namespace | default .Release.Namespace -}}
{{- end }}

{{/* The full name of a workload's Service. Takes (list root workload). */}}
{{- define "mesh.host" -}}
{{- $root := index . 0 -}}
{{ include "mesh.prefix" $root }}{{ index . 1 }}.{{ include "mesh.namespace" $root }}.svc.{{ $root.Values.names.clusterDomain }}
{{- end }}

{{/* The identity of a workload. Takes (list root workload). */}}
{{- define "mesh.principal" -}}
{{- $root := index . 0 -}}
{{ $root.Values.names.trustDomain }}/ns/{{ include "mesh.namespace" $root }}/sa/{{ include "mesh.prefix" $root }}{{ index . 1 }}
{{- end }}

{{- define "mesh.gatewayPrincipal" -}}
{{ .Values.names.trustDomain }}/ns/{{ .Values.gateway.namespace }}/sa/{{ .Values.gateway.serviceAccount }}
{{- end }}

{{/* Labels that all pods of this installation have. */}}
{{- define "mesh.podLabels" -}}
{{- if .Values.names.selector -}}
{{ toYaml .Values.names.selector }}
{{- else -}}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- end }}

{{/* What a policy of a workload applies to: its pods, or its Service where a waypoint enforces. Takes (list root workload). */}}
{{- define "mesh.target" -}}
{{- $root := index . 0 -}}
{{- if eq $root.Values.dataPlane "waypoint" -}}
targetRefs:
  - kind: Service
    group: ""
    name: {{ include "mesh.prefix" $root }}{{ index . 1 }}
{{- else -}}
selector:
  matchLabels:
    {{- include "mesh.podLabels" $root | nindent 4 }}
    app.kubernetes.io/name: {{ index . 1 }}
{{- end }}
{{- end }}

{{- define "mesh.labels" -}}
app.kubernetes.io/part-of: {{ include "mesh.prefix" . | trimSuffix "-" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Where a method's calls go: its Service, or by weight its stable and canary pods. Takes (list root workload). */}}
{{- define "mesh.route" -}}
{{- $root := index . 0 -}}
{{- $host := include "mesh.host" . -}}
{{- $canary := get $root.Values.canaries (index . 1) -}}
{{- $weight := ($canary | default dict).weight | default 0 | int -}}
{{- if $canary -}}
- destination: {host: {{ $host }}, port: {number: {{ $root.Values.names.port }}}, subset: stable}
  weight: {{ sub 100 $weight }}
{{- if $weight }}
- destination: {host: {{ $host }}, port: {number: {{ $root.Values.names.port }}}, subset: canary}
  weight: {{ $weight }}
{{- end }}
{{- else -}}
- destination: {host: {{ $host }}, port: {number: {{ $root.Values.names.port }}}}
{{- end }}
{{- end }}

{{/*
The bounds of a method's route: the timeout (none for a stream), and retries: none unless they are declared, because a route that is silent gets two for
every method. For gRPC a failure that is worth another attempt is the status unavailable, for Connect 503; `reset` covers a lost answer and an attempt
that outlived its own timeout. A gRPC attempt is told of that timeout, so the callee's proxy may end it a moment earlier: `deadline-exceeded`. Takes (list root method).
*/}}
{{- define "mesh.bounds" -}}
{{- $root := index . 0 -}}
{{- $method := index . 1 -}}
{{- $own := get $root.Values.methods $method.name | default dict -}}
{{- $attempts := $own.attempts | default $method.attempts | int -}}
{{- $timeoutMs := $method.timeoutMs | int -}}
{{- with $own.timeout -}}
{{- $timeoutMs = ternary (trimSuffix "ms" . | int) (mul (trimSuffix "s" . | int) 1000) (hasSuffix "ms" .) -}}
{{- end }}
{{- if not $method.stream }}
timeout: {{ $timeoutMs }}ms
{{- end }}
{{- if gt $attempts 1 }}
retries:
  attempts: {{ sub $attempts 1 }}
  {{- if not $method.stream }}
  perTryTimeout: {{ min $timeoutMs (max (div $timeoutMs $attempts) ($method.minPerTryMs | int)) }}ms
  {{- end }}
  retryOn: connect-failure,refused-stream,reset,unavailable,deadline-exceeded,retriable-status-codes,503
{{- else }}
retries: {attempts: 0}
{{- end }}
{{- end }}

{{/* A fault that is injected into a method's route on purpose. Takes (list root method). */}}
{{- define "mesh.fault" -}}
{{- $root := index . 0 -}}
{{- $fault := get $root.Values.faults.methods (index . 1).name -}}
{{- if and $root.Values.faults.enabled $fault -}}
fault:
  {{- if $fault.abortPercent }}
  abort: {percentage: {value: {{ $fault.abortPercent }}}, grpcStatus: {{ $fault.abortGrpcStatus | default "UNAVAILABLE" }}}
  {{- end }}
  {{- if $fault.delayPercent }}
  delay: {percentage: {value: {{ $fault.delayPercent }}}, fixedDelay: {{ $fault.delay | default "1s" }}}
  {{- end }}
{{- end }}
{{- end }}

{{/* Whether a door is open in this installation. Takes (list root door). */}}
{{- define "mesh.isOpen" -}}
{{- $root := index . 0 -}}
{{- $gate := (index . 1).switch -}}
{{- if or (not $gate) (get $root.Values.switches $gate) -}}true{{- end }}
{{- end }}

{{/* Whether a workload may reach something outside. Takes (list egress workload). */}}
{{- define "mesh.mayReach" -}}
{{- $egress := index . 0 -}}
{{- if or (not $egress.workloads) (has (index . 1) $egress.workloads) -}}true{{- end }}
{{- end }}

{{/* Rules of Prometheus whose alerts lead to their runbooks. Takes (list url text): an alert's runbook_url in the text is a page in the folder of that URL. */}}
{{- define "mesh.alertRules" -}}
{{- $base := index . 0 -}}
{{- $rules := index . 1 | fromYaml -}}
{{- range $group := $rules.groups -}}
{{- range $rule := $group.rules -}}
{{- with $rule.annotations -}}
{{- if $base -}}
{{- $_ := set . "runbook_url" (printf "%s/%s" $base .runbook_url) -}}
{{- else -}}
{{- $_ := unset . "runbook_url" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $rules -}}
{{- end }}
