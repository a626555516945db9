// Package metrics counts what the cloud does, for Prometheus.
//
// The figures have their own listener and are not below the API: strangers reach
// that one, and who scrapes should need no key that opens more than figures.
package metrics

import (
	"context"
	"crypto/subtle"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"deckhand/cloud/registry"
)

// Metrics are the figures of one server.
type Metrics struct {
	registry  *prometheus.Registry
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
	running   *prometheus.GaugeVec

	collections *prometheus.CounterVec
	freed       prometheus.Counter
	images      prometheus.Gauge
	blobs       prometheus.Gauge
	collected   prometheus.Gauge
}

const namespace = "deckhand_cloud"

func counter(name, help string) prometheus.CounterOpts {
	return prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}
}

func gauge(name, help string) prometheus.GaugeOpts {
	return prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}
}

// New makes the figures of this process, with those of the Go runtime.
func New(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(counter("http_requests_total", "Requests answered."), []string{"server", "route", "method", "code"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: "http_request_duration_seconds",
			Help: "How long requests took until their answer was written; held ones and streams too.", Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60, 300}}, []string{"server", "route"}),
		running:     prometheus.NewGaugeVec(gauge("http_requests_running", "Requests that are being answered, held ones included."), []string{"server"}),
		collections: prometheus.NewCounterVec(counter("registry_collections_total", "Times that this server cleared up the registry."), []string{"outcome"}),
		freed:       prometheus.NewCounter(counter("registry_freed_bytes_total", "Bytes of blobs that were cleared up.")),
		images:      prometheus.NewGauge(gauge("registry_bytes", "Bytes of blobs in the registry, as of the last time that this server cleared up.")),
		blobs:       prometheus.NewGauge(gauge("registry_blobs", "Blobs in the registry, as of the last time that this server cleared up.")),
		collected:   prometheus.NewGauge(gauge("registry_last_collection_timestamp_seconds", "When this server last cleared up the registry.")),
	}
	build := prometheus.NewGaugeVec(gauge("build_info", "Always 1; the version is a label."), []string{"version"})
	build.WithLabelValues(version).Set(1)
	m.registry.MustRegister(m.requests, m.durations, m.running, m.collections, m.freed, m.images, m.blobs, m.collected, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Begun counts a request that is being answered; the function returned ends that.
// The route is its pattern and never its path: there is no end of paths, and some
// name devices.
func (m *Metrics) Begun(server string) func(route, method string, status int, took time.Duration) {
	if m == nil {
		return func(string, string, int, time.Duration) {}
	}
	m.running.WithLabelValues(server).Inc()
	return func(route, method string, status int, took time.Duration) {
		m.running.WithLabelValues(server).Dec()
		m.requests.WithLabelValues(server, route, known(method), strconv.Itoa(status)).Inc()
		m.durations.WithLabelValues(server, route).Observe(took.Seconds())
	}
}

// Parked ends a request that has begun and will begin anew: it was parked in between.
func (m *Metrics) Parked(server string) {
	if m != nil {
		m.running.WithLabelValues(server).Dec()
	}
}

// known keeps clients from making labels.
func known(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, "MERGE":
		return method
	}
	return "other"
}

// Collected notes that the registry was cleared up.
func (m *Metrics) Collected(c registry.Collection, err error) {
	if err != nil {
		m.collections.WithLabelValues("failed").Inc()
		return
	}
	m.collections.WithLabelValues("done").Inc()
	m.freed.Add(float64(c.Bytes))
	m.images.Set(float64(c.KeptBytes))
	m.blobs.Set(float64(c.KeptBlobs))
	m.collected.SetToCurrentTime()
}

// Value is a figure that is looked up when it is asked for.
type Value struct {
	Name, Help string
	Counter    bool   // it only grows
	Label      string // name of the label of the values; "" when there is one value
}

// scrapeTime bounds how long looking up figures may take.
const scrapeTime = 5 * time.Second

// Look adds figures that are looked up together when they are asked for: read
// returns label → value for each, in the order of values. An error leaves them out.
func (m *Metrics) Look(values []Value, read func(context.Context) ([]map[string]float64, error)) {
	l := &looked{read: read}
	for _, v := range values {
		var labels []string
		if v.Label != "" {
			labels = []string{v.Label}
		}
		kind := prometheus.GaugeValue
		if v.Counter {
			kind = prometheus.CounterValue
		}
		l.kinds = append(l.kinds, kind)
		l.labeled = append(l.labeled, v.Label != "")
		l.values = append(l.values, prometheus.NewDesc(namespace+"_"+v.Name, v.Help, labels, nil))
	}
	m.registry.MustRegister(l)
}

type looked struct {
	values  []*prometheus.Desc
	kinds   []prometheus.ValueType
	labeled []bool
	read    func(context.Context) ([]map[string]float64, error)
}

// Describe is for the library.
func (l *looked) Describe(to chan<- *prometheus.Desc) {
	for _, v := range l.values {
		to <- v
	}
}

// Collect is for the library.
func (l *looked) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	all, err := l.read(ctx)
	if err != nil {
		return
	}
	for i, byLabel := range all {
		for label, value := range byLabel {
			var labels []string
			if l.labeled[i] {
				labels = []string{label}
			}
			to <- prometheus.MustNewConstMetric(l.values[i], l.kinds[i], value, labels...)
		}
	}
}

// Handler answers GET /metrics. With a token it must be sent as a bearer's.
func (m *Metrics) Handler(token string) http.Handler {
	mux := http.NewServeMux()
	figures := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if token != "" && subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+token)) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "the token of --metrics-token is required", http.StatusUnauthorized)
			return
		}
		figures.ServeHTTP(w, r)
	})
	return mux
}
