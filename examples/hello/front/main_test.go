package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// A web that goes away in the middle of an answer: who only reads gets the
// answer of the next try, and nothing is sent twice that may do harm twice.
func TestOnlyHarmlessRequestsAreRepeated(t *testing.T) {
	for method, want := range map[string]struct{ status, asked int }{
		http.MethodGet: {http.StatusOK, 2}, http.MethodPost: {http.StatusBadGateway, 1},
	} {
		t.Run(method, func(t *testing.T) {
			asked := 0
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if asked++; asked == 1 {
					panic(http.ErrAbortHandler)
				}
				_, _ = w.Write([]byte("hello"))
			}))
			defer web.Close()
			host, port, err := net.SplitHostPort(web.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			answer := httptest.NewRecorder()
			newDoor(host, port).ServeHTTP(answer, httptest.NewRequest(method, "/", nil))
			if answer.Code != want.status || asked != want.asked {
				t.Errorf("status %d, asked %d times: %s", answer.Code, asked, answer.Body)
			}
		})
	}
}
