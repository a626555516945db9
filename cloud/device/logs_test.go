package device_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"deckhand/cloud/model"
	"deckhand/logs"
	"deckhand/uplink"
)

// A device that asks for it is told how many of its lines are stored, and lines
// that it sends again are stored once.
func TestAcknowledgedLines(t *testing.T) {
	w, _ := start(t)
	d, key := w.Device(w.Fleet(w.Admin, "kitchen"), "a")
	// stream sends lines and gives the last number that came back.
	stream := func(lines ...string) (last int) {
		from, to := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), "POST", w.URL+"/device/v2/"+d.UUID+"/log-stream", from)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Authorization": {"Bearer " + key}, "Content-Type": {"application/x-ndjson"}, "Deckhand-Acknowledge": {"lines"}}
		res, err := http.DefaultClient.Do(req) // answered before a byte of the body is sent
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != 200 || res.Header.Get("Deckhand-Acknowledge") != "lines" {
			t.Fatalf("answered %d %v", res.StatusCode, res.Header)
		}
		for _, l := range lines {
			_, _ = io.WriteString(to, l+"\n")
		}
		numbers := bufio.NewScanner(res.Body)
		for last < len(lines) && numbers.Scan() {
			_, _ = fmt.Sscan(numbers.Text(), &last)
		}
		to.Close()
		for numbers.Scan() {
			t.Errorf("after all lines: %q", numbers.Text())
		}
		return last
	}
	line := func(source string, pos int) string {
		return fmt.Sprintf(`{"message":"%s%d","timestamp":1,"mark":"%s:%d"}`, source, pos, source, pos)
	}
	if n := stream(line("a", 5), line("b", 1), line("a", 6), `{"message":"unmarked"}`); n != 4 {
		t.Errorf("%d lines are stored", n)
	}
	if n := stream(line("a", 6), line("b", 2), line("b", 1), line("a", 7)); n != 4 {
		t.Errorf("%d lines are stored the second time", n)
	}
	got := messages(t, w.Want(200, "GET", "/device/v2/"+d.UUID+"/logs", w.AdminSession, "").Body)
	if diff := cmp.Diff([]string{"a5", "b1", "a6", "unmarked", "b2", "a7"}, got); diff != "" {
		t.Error(diff)
	}
}

// The device's end and the cloud's understand each other.
func TestADeviceSendsItsLogs(t *testing.T) {
	w, _ := start(t)
	d, key := w.Device(w.Fleet(w.Admin, "kitchen"), "a")
	outbox := logs.OpenOutbox(logs.OutboxConfig{Log: zerolog.Nop()})
	transport := &http.Transport{}
	client, err := uplink.New(uplink.Config{Endpoint: w.URL, UUID: d.UUID, Key: func() string { return key }, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	sender, err := uplink.NewLogs(uplink.LogsConfig{Client: client, Outbox: outbox, OnError: func(err error, _ time.Time) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { sender.Run(ctx) })
	defer func() { cancel(); wg.Wait(); transport.CloseIdleConnections() }()
	const total = 3000
	for i := range total {
		outbox.Put(ctx, "c1", logs.Line{Message: fmt.Sprint(i), At: 1}, logs.Cursor{At: 1, Count: 1, Pos: int64(i + 1)})
	}
	deadline := time.Now().Add(20 * time.Second)
	for c, _ := outbox.Resume("c1"); c.Pos != total; c, _ = outbox.Resume("c1") {
		if time.Now().After(deadline) {
			t.Fatalf("the cloud has %d of %d lines", c.Pos, total)
		}
		<-time.After(time.Millisecond)
	}
	got := messages(t, w.Want(200, "GET", "/device/v2/"+d.UUID+"/logs", w.AdminSession, "").Body)
	for i, m := range got {
		if m != fmt.Sprint(total-len(got)+i) {
			t.Fatalf("line %d is %q", i, m)
		}
	}
	if len(got) != 1000 {
		t.Errorf("%d lines are kept", len(got))
	}
}

// A reader that takes nothing is told afterwards how much it missed.
func TestASlowReaderIsToldWhatItMissed(t *testing.T) {
	w, _ := start(t)
	d, _ := w.Device(w.Fleet(w.Admin, "kitchen"), "a")
	req, err := http.NewRequestWithContext(t.Context(), "GET", w.URL+"/device/v2/"+d.UUID+"/logs?stream=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.AdminSession)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	const rounds, long = 60, 20_000 // more than what connections hold
	for i := range rounds {
		lines := make([]model.LogLine, 100)
		for k := range lines {
			lines[k] = model.LogLine{Timestamp: w.DB.Now(), Message: fmt.Sprintf("%d %s", i*100+k, strings.Repeat("x", long))}
		}
		if err := w.DB.AppendLogs(t.Context(), d.ID, lines); err != nil {
			t.Fatal(err)
		}
	}
	var missed, got, n int
	in := bufio.NewScanner(res.Body)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var l struct{ Message string }
		if len(in.Bytes()) == 0 {
			continue
		}
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscanf(l.Message, "Warning: Suppressed %d message(s) due to slow reading", &n); err == nil {
			missed += n
			continue
		}
		got++
		if strings.HasPrefix(l.Message, fmt.Sprint(rounds*100-1)+" ") {
			break
		}
	}
	if missed == 0 || missed+got > rounds*100 {
		t.Errorf("%d lines came, %d are said to be missing, of %d", got, missed, rounds*100)
	}
}
