{{/*
The mesh chart's values as JSON: those under `mesh`, and in them what follows from the rest, so that nothing is written twice. What is written under
`mesh` all the same stays.
*/}}
{{- define "souk.mesh" -}}
{{- $mesh := deepCopy .Values.mesh -}}
{{- $_ := set $mesh "environment" .Values.environment -}}
{{- $_ := set $mesh "egress" (include "souk.egress" . | fromJson) -}}
{{- $_ := set $mesh "issuer" (include "souk.issuer" . | fromJson) -}}
{{- if and $mesh.enabled $mesh.gateway.enabled (include "souk.testingIssuer" .) -}}
{{- if not $mesh.issuer.jwks -}}
{{- $_ := set $mesh.issuer "jwks" (include "souk.testingJwks" .) -}}
{{- end -}}
{{- if $mesh.issuer.jwks -}}
{{- $_ := unset $mesh.issuer "jwksUri" -}}
{{- end -}}
{{- end -}}
{{- $gateway := $mesh.gateway -}}
{{- if and (eq .Values.environment "development") (not $gateway.tlsSecret) (eq $gateway.plainHttp "redirect") -}}
{{- $_ := set $gateway "plainHttp" "serve" -}}
{{- end -}}
{{- if and .Values.publicUrl (eq (toJson $gateway.hosts) (toJson (list "*"))) -}}
{{- $_ := set $gateway "hosts" (list (regexReplaceAll "^https?://([^:/]+).*$" .Values.publicUrl "${1}")) -}}
{{- end -}}
{{- if not $gateway.corsOrigins -}}
{{- $_ := set $gateway "corsOrigins" .Values.corsOrigins -}}
{{- end -}}
{{- range $name := list "rules" "dashboard" -}}
{{- if (get $.Values.monitoring $name).enabled -}}
{{- $_ := set $mesh.monitoring $name (mergeOverwrite (get $mesh.monitoring $name) (get $.Values.monitoring $name)) -}}
{{- end -}}
{{- end -}}
{{- toJson $mesh -}}
{{- end }}

{{/*
Who signs accounts' tokens, as `mesh.issuer` says, which the mesh and the program both go by; the built-in issuer where it names nobody and `testing` has
one. As JSON.
*/}}
{{- define "souk.issuer" -}}
{{- $issuer := deepCopy .Values.mesh.issuer -}}
{{- if include "souk.testingIssuer" . -}}
{{- $_ := set $issuer "url" (include "souk.testingUrl" (list . "issuer")) -}}
{{- $_ := set $issuer "jwksUri" (printf "%s/jwks" $issuer.url) -}}
{{- end -}}
{{- toJson $issuer -}}
{{- end }}

{{/*
The public key of accounts.pem as a JWKS, for the mesh: istiod asks an issuer for its keys once, before the built-in one is there, and then after 20 minutes.
Empty where no secret is seen: no cluster is asked (helm template, Argo CD), or the secret comes later. A key of P-256 in PKCS #8, as openssl and Node write
it, is 138 bytes, of which the last 64 are the public point.
*/}}
{{- define "souk.testingJwks" -}}
{{- with lookup "v1" "Secret" .Release.Namespace .Values.secrets.keys -}}
{{- $pem := get (.data | default dict) "accounts.pem" | b64dec | nospace -}}
{{- if not (regexMatch "^-----BEGINPRIVATEKEY-----MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg[A-Za-z0-9+/]{136}-----ENDPRIVATEKEY-----$" $pem) -}}
{{- fail (printf "accounts.pem in the secret %s, which secrets.keys names, is missing or no such key as this makes: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256. Put one there, or give its public key in mesh.issuer.jwks." $.Values.secrets.keys) -}}
{{- end -}}
{{- $der := regexReplaceAll "-----[A-Z]+-----" $pem "" | b64dec -}}
{{- $key := dict "kty" "EC" "crv" "P-256" "alg" "ES256" "use" "sig" -}}
{{- range $name, $from := dict "x" 74 "y" 106 -}}
{{- $_ := set $key $name (substr $from (add $from 32 | int) $der | b64enc | trimSuffix "=" | replace "+" "-" | replace "/" "_") -}}
{{- end -}}
{{- dict "keys" (list $key) | toJson -}}
{{- end -}}
{{- end }}

{{/* Whether the built-in issuer runs. */}}
{{- define "souk.testingIssuer" -}}
{{- if and .Values.testing.issuer (not .Values.mesh.issuer.url) -}}true{{- end -}}
{{- end }}

{{/* Where a workload of `testing` is reached. Takes (list root workload). */}}
{{- define "souk.testingUrl" -}}
{{- $root := index . 0 -}}
http://{{ include "souk.prefix" $root }}{{ index . 1 }}.{{ $root.Release.Namespace }}.svc.{{ $root.Values.mesh.names.clusterDomain }}:8080
{{- end }}

{{/* Where the payment processor is. */}}
{{- define "souk.processor" -}}
{{- if .Values.testing.processor -}}
{{ include "souk.testingUrl" (list . "processor") }}/v1
{{- else -}}
{{ .Values.processor.url }}
{{- end -}}
{{- end }}

{{/* The environment that says who signs accounts in. The issuer `souk` is the program's own keys. */}}
{{- define "souk.issuerEnv" -}}
{{- with include "souk.issuer" . | fromJson -}}
{{- if and .url (ne .url "souk") -}}
- {name: SOUK_ISSUER, value: {{ .url | quote }}}
- {name: SOUK_ISSUER_AUDIENCE, value: {{ .audience | quote }}}
- {name: SOUK_ISSUER_ROLES_CLAIM, value: {{ .rolesClaim | quote }}}
{{- with .jwksUri | default .jwks }}
- {name: SOUK_ISSUER_JWKS, value: {{ . | quote }}}
{{- end }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The host, the port and the protocol of a URL outside, as `mesh.egress` has them. Takes (list root url). */}}
{{- define "souk.outsideUrl" -}}
{{- $isTls := hasPrefix "https://" (index . 1) -}}
{{- $host := regexReplaceAll "^https?://([^/]+).*$" (index . 1) "${1}" -}}
{{- include "souk.outside" (list (index . 0) $host (ternary 443 80 $isTls) (ternary "TLS" "HTTP" $isTls)) -}}
{{- end }}

{{/* Where the workloads may go outside: what `mesh.egress` says, the stores, the collector, the issuer, and payment to the processor. */}}
{{- define "souk.egress" -}}
{{- $root := . -}}
{{- $egress := deepCopy .Values.mesh.egress -}}
{{- $given := list -}}
{{- range $egress -}}
{{- $given = append $given (printf "%s:%v" .host .port) -}}
{{- end -}}
{{- $wanted := dict -}}
{{- $tables := include "souk.withTables" . | fromJsonArray -}}
{{- $database := regexReplaceAll "^[a-z]+://([^@/]*@)?([^/?]+).*$" .Values.databaseUrl "${2}" -}}
{{- $_ := set $wanted "database" (include "souk.outside" (list . $database 3306 "TCP") | fromJson | merge (dict "workloads" $tables)) -}}
{{- with regexFind "[?&]replica=[^&]+" .Values.databaseUrl -}}
{{- $replica := regexReplaceAll "^.replica=" . "" -}}
{{- $_ := set $wanted "database-replica" (include "souk.outside" (list $root $replica 3306 "TCP") | fromJson | merge (dict "workloads" $tables)) -}}
{{- end -}}
{{- range $index, $host := .Values.redisHosts -}}
{{- $_ := set $wanted (ternary (printf "redis-%d" $index) "redis" (gt $index 0)) (include "souk.outside" (list $root $host 6379 "TCP") | fromJson) -}}
{{- end -}}
{{- with .Values.telemetry.endpoint -}}
{{- $_ := set $wanted "telemetry" (include "souk.outsideUrl" (list $root .) | fromJson) -}}
{{- end -}}
{{- with include "souk.processor" . -}}
{{- $_ := set $wanted "processor" (include "souk.outsideUrl" (list $root .) | fromJson | merge (dict "workloads" (list "payment"))) -}}
{{- end -}}
{{- $issuer := include "souk.issuer" . | fromJson -}}
{{- if and (hasPrefix "http" $issuer.url) (or $issuer.jwksUri (not $issuer.jwks)) -}}
{{- /* Where its keys are; its own document says so, where nobody else does. */ -}}
{{- $_ := set $wanted "issuer" (include "souk.outsideUrl" (list $root ($issuer.jwksUri | default $issuer.url)) | fromJson) -}}
{{- end -}}
{{- range $name, $each := $wanted -}}
{{- if not (or (hasKey $egress $name) (has (printf "%s:%v" $each.host $each.port) $given)) -}}
{{- $_ := set $egress $name $each -}}
{{- end -}}
{{- end -}}
{{- toJson $egress -}}
{{- end }}

{{/*
One place outside, as the mesh chart's egress has them: a name without a dot is a Service beside this release, one that ends with .svc or the cluster's
domain a Service elsewhere; an address has no name, and gets one. Takes (list root host[:port] port protocol).
*/}}
{{- define "souk.outside" -}}
{{- $root := index . 0 -}}
{{- $domain := $root.Values.mesh.names.clusterDomain -}}
{{- $host := index . 1 | splitList ":" | first -}}
{{- $port := regexFind ":[0-9]+$" (index . 1) | trimPrefix ":" | default (index . 2) | int -}}
{{- $place := dict "port" $port "protocol" (index . 3) -}}
{{- $inner := trimSuffix (printf ".%s" $domain) $host -}}
{{- if not (contains "." $host) -}}
{{- $_ := set $place "namespace" $root.Release.Namespace -}}
{{- $_ := set $place "host" (printf "%s.%s.svc.%s" $host $root.Release.Namespace $domain) -}}
{{- else if hasSuffix ".svc" $inner -}}
{{- $_ := set $place "namespace" (index (splitList "." $inner) 1) -}}
{{- $_ := set $place "host" (printf "%s.%s" $inner $domain) -}}
{{- else if regexMatch "^[0-9.]+$" $host -}}
{{- $_ := set $place "host" (printf "%s.%sstores.internal" (replace "." "-" $host) (include "souk.prefix" $root)) -}}
{{- $_ := set $place "addresses" (list $host) -}}
{{- $_ := set $place "resolution" "NONE" -}}
{{- else -}}
{{- $_ := set $place "host" $host -}}
{{- end -}}
{{- toJson $place -}}
{{- end }}
