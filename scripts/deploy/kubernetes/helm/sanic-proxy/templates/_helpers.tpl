{{- define "sanic-proxy.name" -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "sanic-proxy.selector" -}}
app.kubernetes.io/name: sanic-proxy
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sanic-proxy.metadata" -}}
name: {{ include "sanic-proxy.name" . }}
labels:
  {{- include "sanic-proxy.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}
