{{/* Names are fixed: the webhook's certificates and the parts themselves name each other by them, and two releases in one cluster would fight over the same pods. */}}

{{- define "mirrord.labels" -}}
{{ include "mirrord.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | quote }}
{{- end }}

{{- define "mirrord.selector" -}}
app.kubernetes.io/name: mirrord
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "mirrord.image" -}}
{{- $image := index .root.Values.images .image -}}
{{- with .root.Values.images.registry }}{{ . }}/{{ end -}}
{{ $image.repository }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "mirrord.podSecurity" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "mirrord.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Replicas on different nodes and zones where there are such; never Pending for it. */}}
{{- define "mirrord.spread" -}}
{{- range tuple "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- topologyKey: {{ . }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector: {matchLabels: {app.kubernetes.io/name: mirrord, app.kubernetes.io/component: {{ $.component }}}}
{{- end }}
{{- end }}

{{- define "mirrord.probes" -}}
livenessProbe:
  httpGet: {path: /livez, port: health}
  periodSeconds: 10
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 2
{{- end }}

{{/* The Secret by which others supply the authority; empty where the control plane makes it. */}}
{{- define "mirrord.suppliedSecret" -}}
{{- with .Values.certificates }}{{ if .certManager.issuerRef.name }}mirrord-supplied-ca{{ else }}{{ .secretName }}{{ end }}{{ end }}
{{- end }}

{{/* Where Prometheus finds the metrics, where it goes by annotations. */}}
{{- define "mirrord.scraped" -}}
{{- if .Values.metrics.annotations }}
annotations: {prometheus.io/scrape: "true", prometheus.io/port: "8080", prometheus.io/path: /metrics}
{{- end }}
{{- end }}

{{/* Pod settings that both parts have. */}}
{{- define "mirrord.placement" -}}
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
topologySpreadConstraints:
{{- include "mirrord.spread" . }}
{{- end }}

{{/* What both parts reach. No DNS: the API server's address is in the environment, sidecars' are in Sessions. */}}
{{- define "mirrord.egress" -}}
# Sidecars, wherever pods are (the ports that injection chooses from).
- to:
    - namespaceSelector: {}
  ports:
    - {protocol: UDP, port: 20000, endPort: 29999}
# API servers. Their addresses are unknown; enforcers see the port behind the Service.
- ports:
    {{- range .Values.networkPolicies.apiServerPorts }}
    - {protocol: TCP, port: {{ int . }}}
    {{- end }}
{{- end }}

{{/* Annotations of what the pod of `helm test` needs: there before it, and gone when it has passed. */}}
{{- define "mirrord.testHook" -}}
helm.sh/hook: test
helm.sh/hook-weight: "-1"
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
