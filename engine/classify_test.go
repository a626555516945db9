package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"deckhand/state"
)

// The texts are what Docker Engine 20.10 says, unless marked.
func TestClassifyPull(t *testing.T) {
	for text, want := range map[string]state.Class{
		`manifest for r.example/a/b:1 not found: manifest unknown: Unknown manifest`:                                                            state.ClassNotFound,
		`repository r.example/a/b not found: name unknown: Unknown name`:                                                                        state.ClassNotFound,
		`error parsing HTTP 404 response body: unexpected end of JSON input: ""`:                                                                state.ClassNotFound,
		`Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused`:                                                       state.ClassNetwork,
		`Get "https://r.example/v2/": net/http: TLS handshake timeout`:                                                                          state.ClassNetwork,
		`Get "https://r.example/v2/": net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)`: state.ClassNetwork,
		`received unexpected HTTP status: 502 Bad Gateway`:                                                                                      state.ClassNetwork,
		`Head "https://r.example/v2/a/b/manifests/1": received unexpected HTTP status: 500 Internal Server Error`:                               state.ClassNetwork,
		`read tcp 10.0.0.2:41234->10.0.0.1:443: read: connection reset by peer`:                                                                 state.ClassNetwork,
		`unexpected EOF`:                                                                                    state.ClassNetwork,
		`Get "https://r.example/v2/": EOF`:                                                                  state.ClassNetwork,
		`manifest verification failed for digest sha256:00`:                                                 state.ClassNetwork,
		`invalid character '\x00' looking for beginning of value`:                                           state.ClassNetwork,
		`Get "/v2/a/b/manifests/sha256:00": stopped after 10 redirects`:                                     state.ClassNetwork,
		`filesystem layer verification failed for digest sha256:00`:                                         state.ClassNetwork,
		`Get "https://nowhere.example/v2/": dial tcp: lookup nowhere.example on 10.0.0.53:53: no such host`: state.ClassDNS,
		`Get "https://r.example/v2/": dial tcp: lookup r.example on 10.0.0.53:53: read udp 10.0.0.2:1->10.0.0.53:53: i/o timeout`:          state.ClassDNS,
		`Get "https://192.0.2.2:36969/v2/": x509: certificate is valid for 127.0.0.1, ::1, not 192.0.2.2`:                                  state.ClassTLS,
		`Get "https://r.example/v2/": x509: certificate has expired or is not yet valid: current time 1970-01-01T00:00:00Z is before 2024`: state.ClassTLS,
		`Get "https://192.0.2.2:37251/v2/": http: server gave HTTP response to HTTPS client`:                                               state.ClassTLS,
		`Head "http://r.example/v2/x/y/manifests/1": no basic auth credentials`:                                                            state.ClassAuth,
		`Head "http://r.example/v2/x/y/manifests/1": unauthorized: authentication required`:                                                state.ClassAuth,
		`pull access denied for r.example/x/y, repository does not exist or may require 'docker login': denied: said so`:                   state.ClassAuth,
		`Head "http://r.example/v2/x/y/manifests/1": error parsing HTTP 403 response body: unexpected end of JSON input: ""`:               state.ClassAuth,
		`toomanyrequests: You have reached your pull rate limit.`:                                                                          state.ClassRateLimit,
		`error parsing HTTP 429 response body: unexpected end of JSON input: ""`:                                                           state.ClassRateLimit,
		`failed to register layer: Error processing tar file(exit status 1): write /bin/x: no space left on device`:                        state.ClassSpace,
		`no matching manifest for linux/arm/v7 in the manifest list entries`:                                                               state.ClassInvalid,
		`failed to register layer: open /var/lib/docker/tmp/x: permission denied`:                                                          state.ClassEngine,
		`failed to register layer: layer does not exist`:                                                                                   state.ClassEngine,
	} {
		err := classifyPull(errors.New(text))
		if got := state.ClassOf(err); got != want {
			t.Errorf("%s:\n\tclass %s, want %s", text, got, want)
		}
	}
	for err, want := range map[error]state.Class{
		fmt.Errorf("pull: %w", context.Canceled):         state.ClassCancelled,
		fmt.Errorf("pull: %w", context.DeadlineExceeded): state.ClassTimeout,
	} {
		if got := state.ClassOf(classifyPull(err)); got != want {
			t.Errorf("%v: class %s, want %s", err, got, want)
		}
	}
}

func TestClassifyStart(t *testing.T) {
	for text, want := range map[string]state.Class{
		`OCI runtime create failed: container_linux.go:380: starting container process caused: exec: "x": executable file not found in $PATH: unknown`:                          state.ClassInvalid,
		`failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "/x": stat /x: no such file or directory: unknown`: state.ClassInvalid,
		`standard_init_linux.go:228: exec user process caused: exec format error`:                                                                                               state.ClassInvalid,
		`error gathering device information while adding custom device "/dev/none": no such file or directory`:                                                                  state.ClassEngine,
		`driver failed programming external connectivity on endpoint web (1): Bind for 0.0.0.0:80 failed: port is already allocated`:                                            state.ClassEngine,
		`driver failed programming external connectivity: Error starting userland proxy: listen tcp4 0.0.0.0:80: bind: address already in use`:                                  state.ClassEngine,
	} {
		err := classifyStart(errors.New(text))
		if got := state.ClassOf(err); got != want {
			t.Errorf("%s:\n\tclass %s, want %s", text, got, want)
		}
	}
}
