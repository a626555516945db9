package device

import (
	"crypto/sha256"
	"encoding/base64"
)

// document is a target state as it is sent: what is before the device's app, the app
// and what comes after it. All devices without variables of their own share the app,
// which is nearly all of it.
type document struct {
	head []byte
	app  part
	tail []byte
}

// part is a piece of documents with its hash, which is made once.
type part struct {
	text []byte
	sum  [sha256.Size]byte
}

func newPart(text []byte) part { return part{text, sha256.Sum256(text)} }

// tag is the strong entity tag of a document: the same for the same text in the same
// parts.
func (d document) tag() string {
	text := append(make([]byte, 0, len(d.head)+len(d.tail)+len(d.app.sum)), d.head...)
	if d.app.text != nil {
		text = append(text, d.app.sum[:]...)
	}
	return tagOf(append(text, d.tail...))
}

// size is how many bytes are sent.
func (d document) size() int { return len(d.head) + len(d.app.text) + len(d.tail) }

// tagOf is the strong entity tag of a text.
func tagOf(text []byte) string {
	sum := sha256.Sum256(text)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:18]) + `"`
}
