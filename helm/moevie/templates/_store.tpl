{{/* Where gateway and scheduler keep jobs and clips: a folder, or NATS. */}}
{{- define "moevie.storeEnvironment" -}}
{{- if eq .Values.nats.servers "" -}}
- name: MOEVIE_DATA
  value: /data
{{- else -}}
- name: MOEVIE_NATS
  value: {{ .Values.nats.servers | quote }}
- name: MOEVIE_NATS_PREFIX
  value: {{ .Values.nats.prefix | quote }}
- name: MOEVIE_NATS_REPLICAS
  value: {{ .Values.nats.replicas | quote }}
{{- if .Values.nats.credentialsSecret }}
- name: MOEVIE_NATS_CREDENTIALS_FILE
  value: /etc/moevie/nats/nats.creds
{{- end }}
{{- if .Values.nats.tlsSecret }}
- name: MOEVIE_NATS_TLS_CA_FILE
  value: /etc/moevie/nats-tls/ca.crt
{{- if .Values.nats.clientCertificate }}
- name: MOEVIE_NATS_TLS_CERTIFICATE_FILE
  value: /etc/moevie/nats-tls/tls.crt
- name: MOEVIE_NATS_TLS_KEY_FILE
  value: /etc/moevie/nats-tls/tls.key
{{- end }}
{{- end }}
{{- include "moevie.checkpointEnvironment" . }}
{{- end }}
{{- with .Values.tenants.weights }}
- name: MOEVIE_TENANT_WEIGHTS
  value: {{ include "moevie.tenantWeights" . | quote }}
{{- end }}
- name: MOEVIE_TENANT_QUEUED_MAX
  value: {{ .Values.tenants.queuedMax | quote }}
- name: MOEVIE_TENANT_RUNNING_MAX
  value: {{ .Values.tenants.runningMax | quote }}
{{- end }}

{{/* Where large checkpoints go in place of NATS. */}}
{{- define "moevie.checkpointEnvironment" -}}
{{- $own := printf "%s.%s" .Release.Namespace (include "moevie.fullname" .) -}}
{{- with .Values.checkpoints }}
{{- if .place }}
- name: MOEVIE_CHECKPOINTS
  value: {{ eq .place "file" | ternary (printf "file:///checkpoints/%s" $own) (printf "s3://%s/%s" .s3.bucket (default $own .s3.prefix)) | quote }}
- name: MOEVIE_CHECKPOINTS_MIB_MIN
  value: {{ .mibMin | quote }}
{{- if eq .place "s3" }}
- name: MOEVIE_S3_ENDPOINT
  value: {{ .s3.endpoint | quote }}
- name: MOEVIE_S3_REGION
  value: {{ .s3.region | quote }}
{{- range $name, $key := dict "MOEVIE_S3_ACCESS_KEY" "accessKey" "MOEVIE_S3_SECRET_KEY" "secretKey" }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $.Values.checkpoints.s3.credentialsSecret }}
      key: {{ $key }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A map of weights as tenant=weight, comma separated. */}}
{{- define "moevie.tenantWeights" -}}
{{- $all := list -}}
{{- range $tenant, $weight := . -}}
{{- $all = append $all (printf "%s=%v" $tenant $weight) -}}
{{- end -}}
{{- join "," $all -}}
{{- end }}

{{- define "moevie.storeMounts" -}}
{{- if eq .Values.nats.servers "" -}}
- name: data
  mountPath: /data
{{- else -}}
{{- if .Values.nats.credentialsSecret }}
- name: nats-credentials
  mountPath: /etc/moevie/nats
  readOnly: true
{{- end }}
{{- if .Values.nats.tlsSecret }}
- name: nats-tls
  mountPath: /etc/moevie/nats-tls
  readOnly: true
{{- end }}
{{- if eq .Values.checkpoints.place "file" }}
- name: checkpoints
  mountPath: /checkpoints
{{- end }}
{{- end }}
{{- end }}
