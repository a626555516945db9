package server

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

func TestAPanicIsAnAnswerAndALogLine(t *testing.T) {
	var log bytes.Buffer
	server := httptest.NewServer(middleware{log: zerolog.New(&log), next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/late":
			w.WriteHeader(http.StatusOK)
			panic("late")
		case "/abort":
			panic(http.ErrAbortHandler)
		}
		panic("oh dear")
	})})
	defer server.Close()
	res, err := http.Get(server.URL + "/early?apikey=secret")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || res.StatusCode != 500 || strings.Contains(string(body), "oh dear") {
		t.Errorf("%d %s %v", res.StatusCode, body, err)
	}
	for _, path := range []string{"/late", "/abort"} {
		// What was begun must not look finished.
		res, err := http.Get(server.URL + path)
		if err == nil {
			_, err = io.ReadAll(res.Body)
			res.Body.Close()
		}
		if err == nil {
			t.Errorf("%s looks finished", path)
		}
	}
	server.Close()
	if !strings.Contains(log.String(), "oh dear") || !strings.Contains(log.String(), "middleware_test.go") || strings.Contains(log.String(), "secret") {
		t.Error(log.String())
	}
}
