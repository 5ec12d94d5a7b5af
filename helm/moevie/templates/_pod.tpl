{{/* What every pod and container of the chart has: restricted security, probes, ports, common settings. */}}
{{- define "moevie.podSpec" -}}
serviceAccountName: {{ include "moevie.fullname" . }}
automountServiceAccountToken: false
{{ include "moevie.podSecurity" . }}
{{- end -}}

{{/* The same but for the account. */}}
{{- define "moevie.podSecurity" -}}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .Values.terminationGraceSeconds }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{/* Where a pod runs: its block of values. */}}
{{- define "moevie.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Environment of every service: (dict "root" $ "service" "router" "grpcPort" 7900 "httpPort" 7901). */}}
{{- define "moevie.environment" -}}
- name: MOEVIE_SERVICE
  value: {{ .service }}
- name: MOEVIE_GRPC_LISTEN
  value: "0.0.0.0:{{ .grpcPort }}"
- name: MOEVIE_HTTP_LISTEN
  value: "0.0.0.0:{{ .httpPort }}"
- name: MOEVIE_BUNDLE
  value: {{ printf "/models/%s" .root.Values.model.folder | quote }}
- name: MOEVIE_LOG_FORMAT
  value: json
- name: MOEVIE_LOG_LEVEL
  value: {{ .root.Values.log.level }}
- name: MOEVIE_REFLECTION
  value: {{ ternary "1" "0" .root.Values.reflection | quote }}
{{- with .root.Values.tracing.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ $.root.Values.tracing.sampleRatio | quote }}
{{- end }}
{{- end -}}

{{/* Environment of a service that runs graphs: its block of values. */}}
{{- define "moevie.deviceEnvironment" -}}
- name: MOEVIE_DEVICE
  value: {{ .device | quote }}
- name: MOEVIE_INTRA_OP_THREADS
  value: {{ .threads | quote }}
{{- end -}}

{{/* All of a container but name, env and resources: (dict "root" $ "service" "router" "grpcPort" 7900 "httpPort" 7901),
     and "device" of a service that runs graphs. */}}
{{- define "moevie.containerBase" -}}
image: {{ include "moevie.image" . | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
ports:
  - name: {{ default "grpc" .grpcName }}
    containerPort: {{ .grpcPort }}
  - name: {{ default "http" .httpName }}
    containerPort: {{ .httpPort }}
# The HTTP server answers as soon as the process runs; it is ready only when the model ran once and the peers answer.
startupProbe:
  httpGet: { path: /livez, port: {{ default "http" .httpName }} }
  periodSeconds: 2
  failureThreshold: {{ div (add .root.Values.startupSeconds 1) 2 }}
readinessProbe:
  httpGet: { path: /readyz, port: {{ default "http" .httpName }} }
  periodSeconds: 5
  timeoutSeconds: 3
livenessProbe:
  httpGet: { path: /livez, port: {{ default "http" .httpName }} }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end -}}

{{/* Resources with GPUs added to requests and limits: (dict "root" $ "values" .Values.router). */}}
{{- define "moevie.resources" -}}
{{- $resources := deepCopy .values.resources -}}
{{- if gt (int .values.gpus) 0 -}}
{{- $gpu := dict .root.Values.gpuResource (int .values.gpus) -}}
{{- $_ := set $resources "requests" (merge (default dict $resources.requests) $gpu) -}}
{{- $_ := set $resources "limits" (merge (default dict $resources.limits) $gpu) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- define "moevie.mounts" -}}
- name: model
  mountPath: /models
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- end -}}

{{- define "moevie.volumes" -}}
- name: model
  persistentVolumeClaim:
    claimName: {{ .Values.model.existingClaim }}
    readOnly: {{ .Values.model.readOnly }}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.temporarySize }}
{{- end -}}
