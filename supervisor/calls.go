package supervisor

import (
	"bytes"
	"context"
	"net/http"
	"net/url"

	"deckhand/state"
	"deckhand/uplink"
)

// carryCalls carries out what people ask of the device through a cloud that has no
// other way to it, until ctx ends. The cloud may call whatever the key that it was
// given opens.
func (s *Supervisor) carryCalls(ctx context.Context, client *uplink.Client, waiting <-chan struct{}) {
	api := s.api(true)
	_ = uplink.RunCalls(ctx, uplink.CallConfig{
		Waiting: waiting, Fetch: client.Calls, Answer: client.AnswerCalls,
		Carry: func(ctx context.Context, c uplink.Call) uplink.CallAnswer {
			a := carry(ctx, api, c)
			s.cfg.Log.Info().Str("method", c.Method).Str("path", c.Path).Int("status", a.Status).Msg("call through the cloud")
			return a
		},
		OnError: func(err error) {
			s.cfg.Log.Warn().Err(err).Str("class", string(state.ClassOf(err))).Msg("a call through the cloud is given up")
		},
	}) // it ends with ctx
}

// carry asks the device's own API.
func carry(ctx context.Context, api http.Handler, c uplink.Call) uplink.CallAnswer {
	u, err := url.ParseRequestURI(c.Path)
	if err != nil || u.Host != "" || u.Path == "" {
		return uplink.CallAnswer{Status: http.StatusBadRequest, Type: "text/plain", Body: "not a path of the device's API"}
	}
	r, err := http.NewRequestWithContext(ctx, c.Method, u.String(), bytes.NewReader(c.Body))
	if err != nil {
		return uplink.CallAnswer{Status: http.StatusBadRequest, Type: "text/plain", Body: "not a call of the device's API"}
	}
	if len(c.Body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	var answer kept
	api.ServeHTTP(&answer, r)
	return uplink.CallAnswer{Status: answer.code(), Type: answer.Header().Get("Content-Type"), Body: answer.body.String()}
}

// longestAnswer is the size in bytes up to which an answer goes to the cloud.
const longestAnswer = 512 << 10

// kept keeps an answer.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (k *kept) Header() http.Header {
	if k.header == nil {
		k.header = http.Header{}
	}
	return k.header
}

// WriteHeader implements http.ResponseWriter.
func (k *kept) WriteHeader(status int) {
	if k.status == 0 && status >= http.StatusOK {
		k.status = status
	}
}

// Write implements http.ResponseWriter. What is too long is cut off.
func (k *kept) Write(b []byte) (int, error) {
	k.WriteHeader(http.StatusOK)
	k.body.Write(b[:min(len(b), max(0, longestAnswer-k.body.Len()))])
	return len(b), nil
}

func (k *kept) code() int {
	if k.status == 0 {
		return http.StatusOK
	}
	return k.status
}
