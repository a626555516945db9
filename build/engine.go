package build

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/client"
)

// Engine is the part of a Docker-compatible engine that builds need.
type Engine struct{ api *client.Client }

// NewEngine prepares for the engine at a host like unix:///var/run/docker.sock; "" is what
// the environment says. Nothing is asked yet.
func NewEngine(host string) (*Engine, error) {
	options := []client.Opt{client.WithAPIVersionNegotiation()}
	if host != "" {
		options = append(options, client.WithHost(host))
	}
	api, err := client.NewClientWithOpts(options...)
	if err != nil {
		return nil, fmt.Errorf("engine at %q: %w", host, err)
	}
	return &Engine{api: api}, nil
}

// Close ends connections.
func (e *Engine) Close() error { return e.api.Close() }

// Arch asks the engine what it is. It is also the question whether it is there at all.
func (e *Engine) Arch(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	v, err := e.api.ServerVersion(ctx)
	if err != nil {
		return "", fmt.Errorf("the build engine does not answer: %w", err)
	}
	return v.Arch, nil
}

// serviceError is a failure that lies in what was pushed, not in the builder.
type serviceError struct {
	text   string
	code   int  // exit status of the command that failed; 0 when none did
	denied bool // the registry does not take it
}

func (e *serviceError) Error() string { return e.text }

// engineMessage is one object of the engine's progress streams.
type engineMessage struct {
	Stream   string          `json:"stream"`
	Status   string          `json:"status"`
	ID       string          `json:"id"`
	Aux      json.RawMessage `json:"aux"`
	Error    string          `json:"error"`
	Progress struct {
		Current int64 `json:"current"`
		Total   int64 `json:"total"`
	} `json:"progressDetail"`
	ErrorDetail struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"errorDetail"`
}

// readMessages hands over the objects of a progress stream until it ends or reports a failure.
func readMessages(r io.Reader, each func(engineMessage)) error {
	dec := json.NewDecoder(r)
	for {
		var m engineMessage
		err := dec.Decode(&m)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the connection to the build engine broke: %w", err)
		}
		if m.Error != "" || m.ErrorDetail.Message != "" {
			text := m.ErrorDetail.Message
			if text == "" {
				text = m.Error
			}
			return &serviceError{text: text, code: m.ErrorDetail.Code}
		}
		each(m)
	}
}

// refused tells an engine's clear answer to a request from a connection that broke.
func refused(err error) error {
	if errdefs.IsInvalidArgument(err) || errdefs.IsNotFound(err) || errdefs.IsInternal(err) ||
		errdefs.IsConflict(err) || errdefs.IsPermissionDenied(err) || errdefs.IsUnauthorized(err) {
		return &serviceError{text: err.Error()}
	}
	return err
}

// buildImage builds a context and gives the id of the image. out sees every line.
func (e *Engine) buildImage(ctx context.Context, tarball io.Reader, opts build.ImageBuildOptions, out func(line)) (string, error) {
	opts.Version, opts.Remove, opts.ForceRemove = build.BuilderV1, true, true
	resp, err := e.api.ImageBuild(ctx, tarball, opts)
	if err != nil {
		return "", refused(err)
	}
	defer resp.Body.Close()
	var id string
	var asm assembler
	err = readMessages(resp.Body, func(m engineMessage) {
		if m.Stream != "" {
			for _, l := range asm.add(m.Stream) {
				out(l)
			}
		} else if m.Status != "" && m.Progress.Total == 0 && m.ID == "" { // of a base image's pull
			out(line{text: m.Status})
		}
		var aux struct{ ID string }
		if len(m.Aux) > 0 && json.Unmarshal(m.Aux, &aux) == nil && aux.ID != "" {
			id = aux.ID // one a stage; the last is the result
		}
	})
	for _, l := range asm.flush() {
		out(l)
	}
	if err == nil && id == "" {
		err = errors.New("the build engine ended the build without an image")
	}
	return id, err
}

// transfer turns the per-layer progress of a pull or push into one that only grows.
type transfer struct {
	layers map[string][2]int64
	last   int
	tell   Progress
	told   time.Time
}

// Progress hears of the bytes of a transfer, as far as they are known; percent only grows.
type Progress func(current, total int64, percent int)

func (t *transfer) see(m engineMessage) {
	if m.ID == "" || t.tell == nil {
		return
	}
	if t.layers == nil {
		t.layers = map[string][2]int64{}
	}
	switch m.Status {
	case "Pushed", "Layer already exists", "Pull complete", "Already exists", "Download complete":
		l := t.layers[m.ID]
		t.layers[m.ID] = [2]int64{max(l[1], 1), max(l[1], 1)}
	case "Pushing", "Downloading":
		if m.Progress.Total > 0 {
			t.layers[m.ID] = [2]int64{min(m.Progress.Current, m.Progress.Total), m.Progress.Total}
		}
	case "Preparing", "Waiting", "Pulling fs layer":
		t.layers[m.ID] = [2]int64{0, 0}
	}
	var current, total int64
	sum := 0
	for _, l := range t.layers {
		current, total = current+l[0], total+l[1]
		if l[1] > 0 {
			sum += int(l[0] * 100 / l[1])
		}
	}
	percent := 0
	if len(t.layers) > 0 {
		percent = sum / len(t.layers)
	}
	if now := time.Now(); percent > t.last && (percent == 100 || now.Sub(t.told) > 250*time.Millisecond) {
		t.last, t.told = percent, now
		t.tell(current, total, percent)
	}
}

// Pull fetches an image; auth may be "", tell and out nil.
func (e *Engine) Pull(ctx context.Context, ref, auth, platform string, tell Progress, out func(status string)) error {
	body, err := e.api.ImagePull(ctx, ref, image.PullOptions{RegistryAuth: auth, Platform: platform})
	if err != nil {
		return refused(err)
	}
	defer body.Close()
	t := &transfer{tell: tell}
	return readMessages(body, func(m engineMessage) {
		t.see(m)
		if m.Status != "" && m.Progress.Total == 0 && out != nil {
			if m.ID != "" {
				out(m.ID + ": " + m.Status)
			} else {
				out(m.Status)
			}
		}
	})
}

// Push uploads ref, which must carry a tag, and gives the digest of its manifest; out is
// told what the engine has to send again.
func (e *Engine) Push(ctx context.Context, ref, auth string, tell Progress, out func(status string)) (string, error) {
	body, err := e.api.ImagePush(ctx, ref, image.PushOptions{RegistryAuth: auth})
	if err != nil {
		return "", refused(err)
	}
	defer body.Close()
	var digest string
	t := &transfer{tell: tell}
	again := map[string]bool{} // layers; the engine counts the seconds
	err = readMessages(body, func(m engineMessage) {
		t.see(m)
		if retries := strings.HasPrefix(m.Status, "Retrying in "); retries != again[m.ID] {
			again[m.ID] = retries
			if retries {
				out(fmt.Sprintf("layer %s was not taken; %s", m.ID, strings.ToLower(m.Status)))
			}
		}
		var aux struct{ Digest string }
		if len(m.Aux) > 0 && json.Unmarshal(m.Aux, &aux) == nil && aux.Digest != "" {
			digest = aux.Digest
		}
	})
	if err == nil && digest == "" {
		err = errors.New("the engine did not say under which digest it pushed")
	}
	if said, ok := errors.AsType[*serviceError](err); ok {
		if reason, denied := strings.CutPrefix(said.text, "denied: "); denied {
			err = &serviceError{text: "the registry does not take it: " + reason, denied: true}
		}
	}
	return digest, err
}

// Denied says whether a push failed because the registry will not take the image, however
// often it is asked.
func Denied(err error) bool {
	said, ok := errors.AsType[*serviceError](err)
	return ok && said.denied
}

// ImageIDs lists the local images that have all the labels, steps of builds included.
func (e *Engine) ImageIDs(ctx context.Context, labels ...string) []string {
	f := filters.NewArgs()
	for _, l := range labels {
		f.Add("label", l)
	}
	list, err := e.api.ImageList(ctx, image.ListOptions{All: true, Filters: f})
	if err != nil {
		return nil // only the cache suffers
	}
	ids := make([]string, 0, len(list))
	for _, img := range list {
		ids = append(ids, img.ID)
	}
	return ids
}

// Has reports whether the engine knows an image by this name.
func (e *Engine) Has(ctx context.Context, ref string) bool {
	_, err := e.api.ImageInspect(ctx, ref)
	return err == nil
}

// Tag gives an image one more name, which leads nowhere else from then on.
func (e *Engine) Tag(ctx context.Context, id, ref string) error {
	if err := e.api.ImageTag(ctx, id, ref); err != nil {
		return refused(err)
	}
	return nil
}

// Untag removes one name of an image; the image goes with its last name.
func (e *Engine) Untag(ctx context.Context, ref string) {
	_, _ = e.api.ImageRemove(ctx, ref, image.RemoveOptions{})
}

// TokenAuth is how the engine is told a registry token.
func TokenAuth(token string) string {
	return encodeAuth(registry.AuthConfig{RegistryToken: token})
}

func encodeAuth(a registry.AuthConfig) string {
	data, err := json.Marshal(a)
	if err != nil { // a struct of strings
		return ""
	}
	return base64.URLEncoding.EncodeToString(data)
}

// stepOf reads the engine's announcement of a step.
func stepOf(text string) (n, total int, what string, ok bool) {
	m := stepLine.FindStringSubmatch(text)
	if m == nil {
		return 0, 0, "", false
	}
	n, _ = strconv.Atoi(m[1])
	total, _ = strconv.Atoi(m[2])
	return n, total, m[3], true
}
