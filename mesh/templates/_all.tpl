{{/* All resources, for a chart that has this one as a part and gives it values of its own making. Takes a scope such as a template's own. */}}
{{- define "mesh.all" }}
{{- range list "checks" "access" "destinationRules" "egress" "ingress" "monitoring" "networkPolicies" "rateLimits" "telemetry" "virtualServices" }}
{{- include (printf "mesh.resources.%s" .) $ }}
{{- end }}
{{- end }}
