package status

import "github.com/prometheus/client_golang/prometheus"

// collector turns a Status into metrics when they are asked for. Nothing else
// is registered: the Go runtime's and the process's metrics tell paths,
// versions and timing that nobody needs here.
type collector struct{ s *Server }

var (
	readyDesc    = prometheus.NewDesc("shoal_ready", "1 when a client's traffic can be carried.", nil, nil)
	notReadyDesc = prometheus.NewDesc("shoal_not_ready", "1 while the sidecar is not ready, by cause.", []string{"cause"}, nil)
	trackersDesc = prometheus.NewDesc("shoal_trackers", "Trackers of the network.", nil, nil)
	answerDesc   = prometheus.NewDesc("shoal_trackers_answering", "Trackers that answered when something was last asked of them.", nil, nil)
	hopsDesc     = prometheus.NewDesc("shoal_hops", "Own relays on each side of a peer connection.", nil, nil)
	circuitsDesc = prometheus.NewDesc("shoal_circuits", "Circuits by what they are for, their relays and their state.", []string{"use", "hops", "state"}, nil)
	streamsDesc  = prometheus.NewDesc("shoal_streams", "Open peer connections.", nil, nil)
	bytesDesc    = prometheus.NewDesc("shoal_bytes_total", "Bytes of peer connections, as the client sent or got them.", []string{"direction"}, nil)
	refusedDesc  = prometheus.NewDesc("shoal_refused_total", "What was refused, by reason.", []string{"reason"}, nil)
	warningsDesc = prometheus.NewDesc("shoal_warnings", "Things that the user must act on; the status page names them.", nil, nil)
)

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{readyDesc, notReadyDesc, trackersDesc, answerDesc, hopsDesc, circuitsDesc, streamsDesc, bytesDesc, refusedDesc, warningsDesc} {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	st := c.s.status()
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	ready := 0
	if st.Ready {
		ready = 1
	}
	gauge(readyDesc, ready)
	if !st.Ready {
		gauge(notReadyDesc, 1, st.Cause)
	}
	gauge(trackersDesc, st.Trackers.All)
	gauge(answerDesc, st.Trackers.Answer)
	gauge(hopsDesc, st.Hops)
	for _, g := range groups(st.Circuits) {
		gauge(circuitsDesc, g.Count, g.Use, g.hops(), g.State)
	}
	gauge(streamsDesc, st.Streams)
	counter(bytesDesc, st.BytesIn, "in")
	counter(bytesDesc, st.BytesOut, "out")
	for reason, n := range st.Refused {
		counter(refusedDesc, n, reason)
	}
	gauge(warningsDesc, len(st.Warnings))
}
