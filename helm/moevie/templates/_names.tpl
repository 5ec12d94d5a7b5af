{{/* Names, labels and image references. */}}
{{- define "moevie.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "moevie.fullname" -}}
{{- $name := include "moevie.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that select: (dict "root" $ "component" "router"). */}}
{{- define "moevie.selector" -}}
app.kubernetes.io/name: {{ include "moevie.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "moevie.labels" -}}
{{ include "moevie.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* Image of a service: (dict "root" $ "service" "router"). */}}
{{- define "moevie.image" -}}
{{- $image := .root.Values.image -}}
{{- $path := printf "%s/%s%s:%s" $image.repository .service (ternary "" "-cuda" (eq (default "cpu" .device) "cpu")) (default .root.Chart.AppVersion $image.tag) -}}
{{- if $image.registry -}}{{ printf "%s/%s" $image.registry $path }}{{- else -}}{{ $path }}{{- end -}}
{{- end -}}

{{/* Addresses of the shards. With a controller their number may change, so routers and controllers look for those of a row. */}}
{{- define "moevie.shards" -}}
{{- $full := include "moevie.fullname" . -}}
{{- if .Values.controller.enabled -}}
{{- printf "%s-expert-shard-{0-1023}.%s-expert-shard:7900" $full $full -}}
{{- else -}}
{{- $shards := list -}}
{{- range $index := until (int .Values.expertShard.replicas) -}}
{{- $shards = append $shards (printf "%s-expert-shard-%d.%s-expert-shard:7900" $full $index $full) -}}
{{- end -}}
{{- join "," $shards -}}
{{- end -}}
{{- end -}}
