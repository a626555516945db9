// Package client speaks to a cloud the way deckctl and tests need it: identity, fleets,
// devices, releases, logs and builds. It works against deckhand's own cloud and uses only
// such calls as other openBalena-like clouds answer too, the event stream of builds apart.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"deckhand/state"
)

// Config says which cloud, and as whom.
type Config struct {
	URL     string // of the API, like http://127.0.0.1:8080
	Builder string // URL of the builder; the API's when empty
	Token   string // session or API key; "" for calls that need none
	HTTP    *http.Client
	Agent   string // User-Agent; "deckhand-client" when empty
}

// Client calls one cloud. It may be used from several goroutines.
type Client struct {
	api, builder *url.URL
	token, agent string
	http         *http.Client
	reads        *retryablehttp.Client // questions may be asked again, orders may not
}

// New checks the addresses; it makes no call.
func New(cfg Config) (*Client, error) {
	api, err := baseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	c := &Client{api: api, builder: api, token: cfg.Token, agent: cfg.Agent, http: cfg.HTTP}
	if cfg.Builder != "" {
		if c.builder, err = baseURL(cfg.Builder); err != nil {
			return nil, err
		}
	}
	if c.http == nil {
		c.http = &http.Client{} // no overall timeout: builds and logs run for hours
	}
	if c.agent == "" {
		c.agent = "deckhand-client"
	}
	c.reads = reads(c.http)
	return c, nil
}

// reads asks again when a connection breaks or the cloud is busy or restarting;
// Retry-After is honoured. The last answer is passed on as it is.
func reads(h *http.Client) *retryablehttp.Client {
	r := retryablehttp.NewClient()
	r.HTTPClient, r.Logger = h, nil
	r.RetryMax, r.RetryWaitMin, r.RetryWaitMax = 3, 300*time.Millisecond, 5*time.Second
	r.ErrorHandler = retryablehttp.PassthroughErrorHandler
	return r
}

func baseURL(text string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSuffix(text, "/"))
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, state.Classify(state.ClassInvalid, fmt.Errorf("%q is no address of a cloud; it looks like https://api.example.com", text))
	}
	return u, nil
}

// URL is the address of the API.
func (c *Client) URL() string { return c.api.String() }

// As is the same client with another token.
func (c *Client) As(token string) *Client {
	other := *c
	other.token = token
	return &other
}

// StatusError is an answer of the cloud that says no.
type StatusError struct {
	Code    int    // HTTP status
	Message string // what the cloud says, or the meaning of the status
}

// Error is what the cloud said.
func (e *StatusError) Error() string { return e.Message }

// callTimeout is for calls whose answer is a short document.
const callTimeout = 59 * time.Second

// call makes one request with a JSON body and reads a JSON answer.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := c.send(ctx, method, c.address(c.api, path, query), body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return cutOff(c.api, err)
	}
	switch into := into.(type) {
	case nil:
		return nil
	case *string: // plain text, or a JSON string
		*into = strings.TrimSpace(string(data))
		if strings.HasPrefix(*into, `"`) {
			return json.Unmarshal(data, into)
		}
		return nil
	}
	if err := json.Unmarshal(data, into); err != nil {
		return state.Classify(state.ClassInvalid, fmt.Errorf("%s does not answer as a cloud does: %s %s: %w", c.api.Host, method, path, err))
	}
	return nil
}

// address spells a query the way clouds parse it: option names as they are, and a plus
// sign that means itself.
func (c *Client) address(base *url.URL, path string, query url.Values) string {
	u := base.JoinPath(path)
	var options []string
	for _, name := range slices.Sorted(maps.Keys(query)) {
		for _, value := range query[name] {
			options = append(options, name+"="+strings.ReplaceAll(url.QueryEscape(value), "+", "%20"))
		}
	}
	u.RawQuery = strings.Join(options, "&")
	return u.String()
}

// send makes a request and turns every answer from 400 up into an error.
func (c *Client) send(ctx context.Context, method, address string, body any) (*http.Response, error) {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("write request: %w", err)
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, reader)
	if err != nil {
		return nil, state.Classify(state.ClassInvalid, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.do(req)
}

func (c *Client) do(req *http.Request) (*http.Response, error) {
	req.Header.Set("User-Agent", c.agent)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.ask(req)
	if err != nil {
		return nil, unanswered(req.URL, err)
	}
	if resp.StatusCode < 400 {
		return resp, nil
	}
	defer resp.Body.Close()
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return nil, statusError(resp.StatusCode, data)
}

// ask sends a request; one that only reads is sent again if it fails.
func (c *Client) ask(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet {
		return c.http.Do(req)
	}
	again, err := retryablehttp.FromRequest(req)
	if err != nil {
		return nil, err
	}
	return c.reads.Do(again)
}

func statusError(code int, body []byte) error {
	class := state.ClassInvalid
	switch {
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		class = state.ClassAuth
	case code == http.StatusNotFound:
		class = state.ClassNotFound
	case code == http.StatusTooManyRequests:
		class = state.ClassRateLimit
	case code == http.StatusGatewayTimeout:
		class = state.ClassTimeout
	case code >= 500:
		class = state.ClassNetwork
	}
	message := serverText(body)
	if message == "" {
		message = fmt.Sprintf("the cloud answers %d %s", code, http.StatusText(code))
	}
	return state.Classify(class, &StatusError{Code: code, Message: message})
}

// serverText finds the sentence in an error body: a JSON string, an object that holds one,
// or plain text.
func serverText(body []byte) string {
	var text string
	if json.Unmarshal(body, &text) == nil {
		return text
	}
	var doc struct {
		Message string          `json:"message"`
		Error   json.RawMessage `json:"error"`
	}
	if json.Unmarshal(body, &doc) == nil {
		if json.Unmarshal(doc.Error, &text) == nil && text != "" {
			return text
		}
		return doc.Message
	}
	text = strings.TrimSpace(string(body))
	if strings.HasPrefix(text, "<") || len(text) > 500 {
		return ""
	}
	return text
}
