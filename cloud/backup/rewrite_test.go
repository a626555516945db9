package backup_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"testing"
)

// rewritten is a whole backup whose first document was changed.
func rewritten(t *testing.T, packed []byte, change func(string) string) []byte {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	must(err)
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	to := tar.NewWriter(zip)
	sums := map[string]string{}
	for from := tar.NewReader(unpacked); ; {
		h, err := from.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(err)
		b, err := io.ReadAll(from)
		must(err)
		switch h.Name {
		case "backup.json":
			b = []byte(change(string(b)))
		case "checksums.json":
			b, err = json.Marshal(sums)
			must(err)
		}
		sum := sha256.Sum256(b)
		sums[h.Name] = hex.EncodeToString(sum[:])
		h.Size = int64(len(b))
		must(to.WriteHeader(h))
		_, err = to.Write(b)
		must(err)
	}
	must(to.Close())
	must(zip.Close())
	return out.Bytes()
}
