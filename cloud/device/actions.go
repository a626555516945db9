package device

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"deckhand/cloud/access"
	"deckhand/cloud/answer"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
)

// People have devices do things by calling the devices' own API through the cloud.
// Devices cannot be called, so a call is written down, the request that the device
// holds ends, and the device fetches the call, carries it out and says how it went.

// call is the body of a call.
type call struct {
	DeviceID json.RawMessage `json:"deviceId"` // a number or its digits
	AppID    json.RawMessage `json:"appId"`
	UUID     string          `json:"uuid"`
	Data     json.RawMessage `json:"data"`
	Method   string          `json:"method"`
}

const (
	noDevice = "No online device(s) found"
	// maxCallAnswer is the size in bytes up to which a device's answer is stored.
	maxCallAnswer = 1 << 20
	// actionsKept is for how long one can look what was asked of devices.
	actionsKept = 24 * time.Hour
	// updatePath is the call that any device understands that holds a request.
	updatePath = "/v1/update"
)

func (c call) reach() (model.Reach, error) {
	r := model.Reach{UUID: c.UUID}
	var err error
	if r.Fleet, err = digits(c.AppID); err != nil {
		return r, errors.New("App ID must be a valid integer if specified") //nolint:staticcheck // wire text
	}
	if r.Device, err = digits(c.DeviceID); err != nil {
		return r, errors.New("Device ID must be a valid integer if specified")
	}
	if r == (model.Reach{}) {
		return r, errors.New("At least one filter must be specified") //nolint:staticcheck // wire text
	}
	return r, nil
}

// digits reads a number that may be written as text; 0: nothing is there.
func digits(raw json.RawMessage) (int64, error) {
	text := strings.Trim(string(raw), `"`)
	if text == "" || text == "null" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err == nil && n <= 0 {
		err = strconv.ErrRange
	}
	return n, err
}

// relay passes a call on to devices and their answers back.
func (d *Device) relay(w http.ResponseWriter, r *http.Request) {
	var c call
	if err := answer.Decode(r, &c); err != nil {
		answer.BadBody(w, err)
		return
	}
	reach, err := c.reach()
	if err != nil {
		answer.JSON(w, http.StatusBadRequest, err.Error())
		return
	}
	path := "/" + r.PathValue("path")
	query := r.URL.Query()
	query.Del("apikey") // the caller's, not the device's
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	answers, ok := d.ask(w, r, reach, question{method: strings.ToUpper(c.Method), path: path, body: c.Data})
	switch {
	case !ok:
	case len(answers) == 1:
		answers[0].write(w)
	default:
		answer.JSON(w, http.StatusMultiStatus, answers)
	}
}

// restartFleet restarts the app on all devices of a fleet that are there.
func (d *Device) restartFleet(w http.ResponseWriter, r *http.Request) {
	fleet, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || fleet <= 0 {
		answer.Empty(w, http.StatusNotFound)
		return
	}
	body := json.RawMessage(`{"appId":` + strconv.FormatInt(fleet, 10) + `}`)
	if _, ok := d.ask(w, r, model.Reach{Fleet: fleet}, question{path: "/v1/restart", body: body}); ok {
		answer.Empty(w, http.StatusOK)
	}
}

// question is what is asked of devices.
type question struct {
	method, path string
	body         json.RawMessage
}

func (q question) reads() bool { return q.method == http.MethodGet || q.method == http.MethodHead }

// deviceAnswer is what one device said.
type deviceAnswer struct {
	Status int `json:"statusCode"`
	Body   any `json:"body,omitempty"` // a document or a text

	text string
}

func (a deviceAnswer) write(w http.ResponseWriter) {
	if a.text == "" {
		answer.Empty(w, a.Status)
		return
	}
	if _, isJSON := a.Body.(json.RawMessage); isJSON {
		answer.Bytes(w, a.Status, []byte(a.text))
		return
	}
	answer.Text(w, a.Status, a.text)
}

// ask has devices carry out a question; ok is false when the request is answered.
func (d *Device) ask(w http.ResponseWriter, r *http.Request, reach model.Reach, q question) (_ []deviceAnswer, ok bool) {
	if q.method == "" {
		q.method = http.MethodPost
	}
	actor, err := d.auth.Authenticate(r)
	if errors.Is(err, auth.ErrUnauthenticated) {
		answer.Empty(w, http.StatusUnauthorized)
		return nil, false
	}
	if err != nil {
		answer.Failure(w, r, err)
		return nil, false
	}
	devices, err := d.reachable(r.Context(), actor, reach, q)
	if err != nil {
		answer.Failure(w, r, err)
		return nil, false
	}
	if len(devices) == 0 {
		answer.Text(w, http.StatusNotFound, noDevice)
		return nil, false
	}
	may, err := d.mayOperate(r.Context(), actor, reach, devices, q)
	if !answer.Allow(w, r, may, err) {
		return nil, false
	}
	control := http.NewResponseController(w)
	control.SetWriteDeadline(time.Now().Add(d.relaying + answerGrace)) //nolint:errcheck // a recorder has no deadlines
	answers, err := d.carry(r.Context(), devices, q)
	if err != nil {
		answer.Failure(w, r, err)
	}
	return answers, err == nil
}

// reachable are the devices that can do what is asked: any that holds a request can
// ask for its state again.
func (d *Device) reachable(ctx context.Context, actor auth.Actor, reach model.Reach, q question) ([]model.Reachable, error) {
	all, err := d.db.ReachableDevices(ctx, actor.Caller(), reach)
	if err != nil {
		return nil, err
	}
	var able []model.Reachable
	for _, one := range all {
		if one.Acts || q.path == updatePath {
			able = append(able, one)
		}
	}
	return able, nil
}

func (d *Device) mayOperate(ctx context.Context, actor auth.Actor, reach model.Reach, devices []model.Reachable, q question) (bool, error) {
	if q.reads() {
		return true, nil
	}
	if reach.Device == 0 && reach.UUID == "" {
		return d.db.May(ctx, actor.Caller(), "application", access.Operate, reach.Fleet)
	}
	for _, one := range devices {
		if may, err := d.db.May(ctx, actor.Caller(), "device", access.Operate, one.ID); err != nil || !may {
			return false, err
		}
	}
	return true, nil
}

// carry writes the question down for each device and waits for their answers.
func (d *Device) carry(ctx context.Context, devices []model.Reachable, q question) ([]deviceAnswer, error) {
	var acting, waking []int64
	var topics []model.Topic
	for _, one := range devices {
		if one.Acts {
			acting = append(acting, one.ID)
			topics = append(topics, model.Topic{Kind: model.DeviceAnswer, ID: one.ID})
		} else {
			waking = append(waking, one.ID)
		}
	}
	changes := d.db.Changes().Watch(topics...)
	defer changes.Stop()
	answers := make([]deviceAnswer, 0, len(devices))
	if len(waking) > 0 {
		if err := d.db.CallDevices(ctx, waking); err != nil {
			return nil, err
		}
		for range waking {
			answers = append(answers, deviceAnswer{Status: http.StatusNoContent})
		}
	}
	if len(acting) == 0 {
		return answers, nil
	}
	ids, err := d.db.CreateActions(ctx, acting, model.NewAction{
		Method: q.method, Path: q.path, Body: string(present(q.body)), Expires: d.db.Now().Add(d.relaying)})
	if err != nil {
		return nil, err
	}
	more, err := d.collect(ctx, ids, changes.C())
	return append(answers, more...), err
}

// collect waits for the answers to actions.
func (d *Device) collect(ctx context.Context, ids []int64, changes <-chan struct{}) ([]deviceAnswer, error) {
	timer := time.NewTimer(d.relaying)
	defer timer.Stop()
	for over := false; ; {
		actions, err := d.db.Actions(ctx, ids)
		if err != nil {
			return nil, err
		}
		open := 0
		answers := make([]deviceAnswer, len(ids))
		for i, id := range ids {
			a, there := actions[id]
			if there && a.AnswerStatus == 0 {
				open++
			}
			answers[i] = answered(a)
		}
		if open == 0 || over {
			return answers, nil
		}
		select {
		case <-changes:
		case <-timer.C:
			over = true
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// answered is the device's answer as people get it.
func answered(a model.Action) deviceAnswer {
	switch {
	case a.AnswerStatus == 0 && a.Taken:
		return deviceAnswer{Status: http.StatusBadGateway, Body: "The device took the request and has not answered in time.", text: "The device took the request and has not answered in time."}
	case a.AnswerStatus == 0:
		return deviceAnswer{Status: http.StatusBadGateway, Body: "The device has not fetched the request in time.", text: "The device has not fetched the request in time."}
	case a.Answer == "":
		return deviceAnswer{Status: a.AnswerStatus}
	case strings.Contains(a.AnswerType, "json") && json.Valid([]byte(a.Answer)):
		return deviceAnswer{Status: a.AnswerStatus, Body: json.RawMessage(a.Answer), text: a.Answer}
	}
	return deviceAnswer{Status: a.AnswerStatus, Body: a.Answer, text: a.Answer}
}

// The device's end.

// sentAction is an action as a device fetches it.
type sentAction struct {
	ID     int64           `json:"id"`
	Method string          `json:"method"`
	Path   string          `json:"path"`
	Body   json.RawMessage `json:"body,omitempty"`
}

// sentAnswer is how a device answers it.
type sentAnswer struct {
	ID     int64  `json:"id"`
	Status int    `json:"status"`
	Type   string `json:"type"` // of the body; "": there is none
	Body   string `json:"body"`
}

// itself checks that the request comes from the device that it is about; ok is
// false when it is answered.
func (d *Device) itself(w http.ResponseWriter, r *http.Request) (*model.Device, bool) {
	actor, ok := d.auth.Require(w, r, auth.Device)
	if !ok {
		return nil, false
	}
	device, err := d.find(r.Context(), r.PathValue("uuid"))
	if err != nil {
		answer.Failure(w, r, err)
		return nil, false
	}
	if device == nil || device.ID != actor.ID {
		answer.Empty(w, http.StatusUnauthorized)
		return nil, false
	}
	return device, true
}

func (d *Device) takeActions(w http.ResponseWriter, r *http.Request) {
	device, ok := d.itself(w, r)
	if !ok {
		return
	}
	actions, err := d.db.TakeActions(r.Context(), device.ID)
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	sent := make([]sentAction, len(actions))
	for i, a := range actions {
		sent[i] = sentAction{a.ID, a.Method, a.Path, json.RawMessage(a.Body)}
	}
	answer.JSON(w, http.StatusOK, sent)
}

func (d *Device) answerActions(w http.ResponseWriter, r *http.Request) {
	device, ok := d.itself(w, r)
	if !ok {
		return
	}
	var sent []sentAnswer
	if err := answer.Decode(r, &sent); err != nil {
		answer.BadBody(w, err)
		return
	}
	for _, a := range sent {
		if a.Status < 200 || a.Status > 599 || len(a.Body) > maxCallAnswer {
			answer.JSON(w, http.StatusBadRequest, "status must be 200 to 599, and body at most a megabyte.")
			return
		}
		err := d.db.AnswerAction(r.Context(), device.ID, model.Action{ID: a.ID, AnswerStatus: a.Status, AnswerType: a.Type, Answer: strings.ToValidUTF8(strings.ReplaceAll(a.Body, "\x00", ""), "")})
		if err != nil {
			answer.Failure(w, r, err)
			return
		}
	}
	answer.Empty(w, http.StatusOK)
}

// dropActions forgets old actions now and then.
func (d *Device) dropActions(ctx context.Context) {
	ticker := time.NewTicker(time.Hour)
	defer ticker.Stop()
	for {
		if err := d.db.DropActions(ctx, d.db.Now().Add(-actionsKept)); err != nil && ctx.Err() == nil {
			d.failed(err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
