package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"deckhand/state"
)

// LogLine is one line that a device sent.
type LogLine struct {
	CreatedAt int64  `json:"createdAt"` // when the cloud got it, in milliseconds since 1970
	Timestamp int64  `json:"timestamp"` // when the device saw it, likewise
	IsSystem  bool   `json:"isSystem"`
	IsStdErr  bool   `json:"isStdErr"`
	ServiceID int64  `json:"serviceId"`
	Message   string `json:"message"`
}

// Logs reads the last lines of a device, the oldest first. A count of 0 leaves the number
// to the cloud.
func (c *Client) Logs(ctx context.Context, uuid string, count int) ([]LogLine, error) {
	query := url.Values{}
	if count > 0 {
		query.Set("count", strconv.Itoa(count))
	}
	var found []LogLine
	if err := c.call(ctx, http.MethodGet, "/device/v2/"+uuid+"/logs", query, nil, &found); err != nil {
		return nil, fmt.Errorf("read logs of %s: %w", uuid, err)
	}
	return found, nil
}

// FollowLogs hands over the last count lines and then each new one until the context ends,
// the cloud closes the stream, or each gives an error.
func (c *Client) FollowLogs(ctx context.Context, uuid string, count int, each func(LogLine) error) error {
	query := url.Values{"stream": {"1"}, "count": {strconv.Itoa(count)}}
	resp, err := c.send(ctx, http.MethodGet, c.address(c.api, "/device/v2/"+uuid+"/logs", query), nil)
	if err != nil {
		return fmt.Errorf("follow logs of %s: %w", uuid, err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 64<<10), 4<<20)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue // a heartbeat
		}
		var l LogLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return state.Classify(state.ClassInvalid, fmt.Errorf("follow logs of %s: %w", uuid, err))
		}
		if err := each(l); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("follow logs of %s: %w", uuid, cutOff(c.api, err))
	}
	return nil
}

// ServiceNames maps service ids to names, for the lines of a device's log.
func (c *Client) ServiceNames(ctx context.Context, fleet int64) (map[int64]string, error) {
	return c.serviceNames(ctx, fleet)
}
