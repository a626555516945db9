package asset_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"deckhand/cloud/asset"
	"deckhand/cloud/bucket"
	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
	"deckhand/cloud/odata"
	"deckhand/test/s3"
)

const mib = 1 << 20

// world is a cloud with a release, and a store that takes files of up to 8 MiB.
type world struct {
	*cloudtest.World
	dir     string
	bucket  *bucket.Store // nil: the files are in dir
	store   *asset.Store
	release model.Release
	clock   time.Time
}

func start(t *testing.T) *world {
	t.Helper()
	w := &world{dir: filepath.Join(t.TempDir(), "assets"), clock: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	var lock sync.Mutex
	w.World = cloudtest.New(t, func() time.Time {
		lock.Lock()
		defer lock.Unlock()
		return w.clock
	})
	if s3.Wanted() {
		_, address := s3.One(t).Bucket(t)
		a, err := bucket.ParseAddress(address)
		must(err)
		w.bucket, err = bucket.Open(t.Context(), a)
		must(err)
	}
	var err error
	if w.store, err = asset.New(asset.Config{Dir: w.dir, Bucket: w.bucket, DB: w.DB, Limit: 8 * mib}); err != nil {
		t.Fatal(err)
	}
	odata.New(odata.Config{DB: w.DB, Auth: w.Auth, Assets: w.store}).Routes(w.Mux)
	w.store.Routes(w.Mux)
	w.release, _ = w.Release(w.Fleet(w.Admin, "kitchen"), "abc1", `{"services":{"web":{}}}`)
	return w
}

// form is a body as browsers send it, and its Content-Type.
func form(fields map[string]string, filename, kind, content string) (body, contentType string) {
	var b bytes.Buffer
	f := multipart.NewWriter(&b)
	for name, value := range fields {
		must(f.WriteField(name, value))
	}
	part, err := f.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {multipart.FileContentDisposition("asset", filename)}, "Content-Type": {kind},
	})
	must(err)
	_, err = part.Write([]byte(content))
	must(err)
	must(f.Close())
	return b.String(), f.FormDataContentType()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// file is an asset as the API shows it.
type file struct {
	Filename    string `json:"filename"`
	Href        string `json:"href"`
	ContentType string `json:"content_type"`
	Disposition string `json:"content_disposition"`
	Size        int64  `json:"size"`
}

// add uploads a new asset in one piece.
func (w *world) add(key, content string) cloudtest.Answer {
	w.T.Helper()
	body, kind := form(map[string]string{"asset_key": key, "release": fmt.Sprint(w.release.ID)}, key+".txt", "text/html", content)
	return w.Do("POST", "/v7/release_asset", w.AdminSession, body, "Content-Type", kind)
}

// shown reads an asset; nil: it has no file.
func (w *world) shown(key string) *file {
	w.T.Helper()
	a := w.Want(200, "GET", fmt.Sprintf("/v7/release_asset(asset_key='%s',release=%d)?$select=asset", key, w.release.ID), w.AdminSession, "")
	var rows struct{ D []struct{ Asset *file } }
	w.decode(a.Body, &rows)
	if len(rows.D) != 1 {
		w.T.Fatalf("asset %s: %s", key, a.Body)
	}
	return rows.D[0].Asset
}

func (w *world) decode(body string, into any) {
	w.T.Helper()
	if err := json.Unmarshal([]byte(body), into); err != nil {
		w.T.Fatalf("%s: %v", body, err)
	}
}

// path is an address of the cloud without its beginning.
func (w *world) path(address string) string {
	w.T.Helper()
	path, ok := strings.CutPrefix(address, "http://api.invalid")
	if !ok {
		w.T.Fatalf("%q is not an address of this cloud", address)
	}
	return path
}

// kept is how many files and unfinished uploads are on the disk after clearing up.
func (w *world) kept() (files, uploads int) {
	w.T.Helper()
	if _, err := w.store.Collect(context.Background(), -time.Hour); err != nil {
		w.T.Fatal(err)
	}
	count := func(sub string) int {
		entries, err := os.ReadDir(filepath.Join(w.dir, sub))
		if err != nil {
			w.T.Fatal(err)
		}
		return len(entries)
	}
	if n := count("partial"); n != 0 {
		w.T.Errorf("%d parts are left over", n)
	}
	if w.bucket != nil {
		return w.keptInBucket()
	}
	return count("files"), count("uploads")
}

// keptInBucket is kept: files are documents there, which name the upload they are of.
func (w *world) keptInBucket() (files, uploads int) {
	w.T.Helper()
	documents, err := w.bucket.Objects(context.Background(), "/assets/files")
	must(err)
	sent, err := w.bucket.Objects(context.Background(), "/assets/parts")
	must(err)
	others := map[string]bool{}
	for _, o := range sent {
		others[path.Base(path.Dir(o.Path))] = true
	}
	for _, o := range documents {
		delete(others, path.Base(o.Path))
	}
	return len(documents), len(others)
}

// A small file goes up in one request, and down to whoever has its address.
func TestASmallFile(t *testing.T) {
	w := start(t)
	a := w.add("notes", "hello")
	if a.Status != 201 || !strings.Contains(a.Body, `"asset_key":"notes"`) || !strings.Contains(a.Body, `"filename":"notes.txt"`) {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	first := w.shown("notes")
	if first.Filename != "notes.txt" || first.ContentType != "text/html" || first.Size != 5 || first.Disposition != "attachment; filename=notes.txt" {
		t.Errorf("%+v", first)
	}
	got := w.Want(200, "GET", w.path(first.Href), "", "")
	// It must not run as a page of the cloud: that could act for whoever looks at it.
	if got.Body != "hello" || got.Header.Get("Content-Type") != "text/html" || got.Header.Get("X-Content-Type-Options") != "nosniff" ||
		!strings.HasPrefix(got.Header.Get("Content-Disposition"), "attachment") || !strings.Contains(got.Header.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("%q %v", got.Body, got.Header)
	}
	if part := w.Want(206, "GET", w.path(first.Href), "", "", "Range", "bytes=1-3"); part.Body != "ell" {
		t.Errorf("a part of it is %q", part.Body)
	}
	if again := w.add("notes", "other"); again.Status != 409 || !strings.Contains(again.Body, "unique") {
		t.Errorf("a second one of the same key: %d %s", again.Status, again.Body)
	}
	body, kind := form(nil, "../../new name.bin", "", "changed")
	w.Want(200, "PATCH", fmt.Sprintf("/v7/release_asset(asset_key='notes',release=%d)", w.release.ID), w.AdminSession, body, "Content-Type", kind)
	second := w.shown("notes")
	if second.Filename != "new name.bin" || second.ContentType != "application/octet-stream" || second.Size != 7 {
		t.Errorf("%+v", second)
	}
	w.Want(404, "GET", w.path(first.Href), "", "")
	if got := w.Want(200, "GET", w.path(second.Href), "", ""); got.Body != "changed" {
		t.Errorf("%q", got.Body)
	}
	if files, _ := w.kept(); files != 1 {
		t.Errorf("%d files are kept", files)
	}
	w.Want(200, "DELETE", fmt.Sprintf("/v7/release(%d)?$filter=status%%20eq%%20'x'", w.release.ID), w.AdminSession, "") // none
	w.Want(200, "GET", w.path(second.Href), "", "")
	w.Want(200, "PATCH", "/v7/application(slug='admin/kitchen')", w.AdminSession, `{"should_track_latest_release":false,"should_be_running__release":null}`)
	w.Want(200, "DELETE", fmt.Sprintf("/v7/release(%d)", w.release.ID), w.AdminSession, "")
	w.Want(404, "GET", w.path(second.Href), "", "")
	if files, _ := w.kept(); files != 0 {
		t.Errorf("%d files outlive their release", files)
	}
}

// Who may not add assets leaves nothing on the disk.
func TestAFileThatNobodyMayAdd(t *testing.T) {
	w := start(t)
	fields := map[string]string{"asset_key": "notes", "release": fmt.Sprint(w.release.ID)}
	body, kind := form(fields, "a.txt", "text/plain", "hello")
	w.Want(401, "POST", "/v7/release_asset", w.BobSession, body, "Content-Type", kind)
	w.Want(401, "POST", "/v7/release_asset", "", body, "Content-Type", kind)
	w.Want(401, "POST", "/v6/release_asset", w.AdminSession, body, "Content-Type", kind)
	w.Want(415, "POST", "/v7/release", w.AdminSession, body, "Content-Type", kind)
	w.Want(400, "POST", "/v7/release_asset", w.AdminSession, body[:len(body)-60], "Content-Type", kind)
	w.add("mine", "hello")
	w.Want(400, "PATCH", "/v7/release_asset?$filter=asset_key%20eq%20'mine'", w.AdminSession, body, "Content-Type", kind)
	w.Want(200, "PATCH", "/v7/release_asset(12345)", w.AdminSession, body, "Content-Type", kind)
	w.Want(200, "PATCH", fmt.Sprintf("/v7/release_asset(asset_key='mine',release=%d)", w.release.ID), w.BobSession, body, "Content-Type", kind)
	if a := w.add("large", strings.Repeat("x", 8*mib+1)); a.Status != 413 {
		t.Errorf("a file that is too large: %d %s", a.Status, a.Body)
	}
	for _, forged := range []string{`{"filename":"x","href":"` + model.AssetPath + `?id=1"}`, `{}`} {
		a := w.Want(400, "POST", "/v7/release_asset", w.AdminSession, fmt.Sprintf(`{"asset_key":"forged","release":%d,"asset":%s}`, w.release.ID, forged))
		if !strings.Contains(a.Body, "multipart/form-data") {
			t.Error(a.Body)
		}
	}
	if files, uploads := w.kept(); files != 1 || uploads != 0 {
		t.Errorf("%d files and %d uploads are kept, want one file", files, uploads)
	}
	if f := w.shown("mine"); f.Size != 5 {
		t.Errorf("somebody changed it: %+v", f)
	}
}

// upload is an upload in parts, as the client sees it.
type upload struct {
	*world
	asset   string // path of the resource
	uuid    string
	parts   []asset.Part
	content string
	etags   []string
}

// begin begins to upload content in chunks of a MiB.
func (w *world) begin(key, content string) *upload {
	w.T.Helper()
	path := fmt.Sprintf("/v7/release_asset(asset_key='%s',release=%d)", key, w.release.ID)
	a := w.Want(200, "POST", path+"/beginUpload", w.AdminSession,
		fmt.Sprintf(`{"asset":{"filename":"fw.bin","content_type":"application/x-firmware","size":%d,"chunk_size":%d}}`, len(content), mib))
	var begun struct{ Asset asset.Upload }
	w.decode(a.Body, &begun)
	return &upload{w, path, begun.Asset.UUID, begun.Asset.Parts, content, make([]string, len(begun.Asset.Parts))}
}

func (u *upload) chunk(i int) string { return u.content[i*mib : min((i+1)*mib, len(u.content))] }

func (u *upload) send(i int) {
	u.T.Helper()
	a := u.Want(200, "PUT", u.path(u.parts[i].URL), "", u.chunk(i))
	if u.etags[i] = a.Header.Get("ETag"); u.etags[i] == "" {
		u.T.Error("a part is answered without an ETag")
	}
}

func (u *upload) commit() cloudtest.Answer {
	u.T.Helper()
	sent := make([]asset.Sent, len(u.etags))
	for i, etag := range u.etags {
		sent[i] = asset.Sent{N: int64(i + 1), ETag: etag}
	}
	body, err := json.Marshal(map[string]any{"uuid": u.uuid, "providerCommitData": map[string]any{"Parts": sent}})
	must(err)
	return u.Do("POST", u.asset+"/commitUpload", u.AdminSession, string(body))
}

func (w *world) empty(key string) {
	w.T.Helper()
	w.Want(201, "POST", "/v7/release_asset", w.AdminSession, fmt.Sprintf(`{"asset_key":"%s","release":%d,"asset":null}`, key, w.release.ID))
	if f := w.shown(key); f != nil {
		w.T.Errorf("a new asset has the file %+v", f)
	}
}

func large() string {
	var b strings.Builder
	for i := 0; b.Len() < 5*mib/2; i++ {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

// A large file goes up in parts, in any order and more than once.
func TestALargeFile(t *testing.T) {
	w := start(t)
	w.empty("firmware")
	u := w.begin("firmware", large())
	if len(u.parts) != 3 || u.parts[0].Size != mib || u.parts[2].Size != int64(len(u.chunk(2))) || u.parts[2].N != 3 {
		t.Fatalf("%+v", u.parts)
	}
	u.send(2)
	u.Want(200, "PUT", u.path(u.parts[1].URL), "", strings.Repeat("x", mib)) // and again, right
	u.send(1)
	if a := u.commit(); a.Status != 400 || !strings.Contains(a.Body, "Part 1 is missing") {
		t.Errorf("a commit without the first part: %d %s", a.Status, a.Body)
	}
	if files, uploads := w.kept(); files != 0 || uploads != 1 {
		t.Errorf("%d files and %d uploads are kept while it goes on", files, uploads)
	}
	u.send(0)
	for _, bad := range []string{"", "short", strings.Repeat("x", mib+1)} {
		if a := u.Do("PUT", u.path(u.parts[0].URL), "", bad); a.Status != 400 && a.Status != 413 {
			t.Errorf("%d bytes as a part: %d %s", len(bad), a.Status, a.Body)
		}
	}
	u.Want(400, "PUT", strings.Replace(u.path(u.parts[0].URL), "part=1", "part=4", 1), "", "x")
	if a := u.commit(); a.Status != 200 || !strings.Contains(a.Body, `"filename":"fw.bin"`) {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	f := w.shown("firmware")
	if f.Filename != "fw.bin" || f.ContentType != "application/x-firmware" || f.Size != int64(len(u.content)) {
		t.Errorf("%+v", f)
	}
	if files, uploads := w.kept(); files != 1 || uploads != 0 {
		t.Errorf("%d files and %d uploads are kept", files, uploads)
	}
	if got := w.Want(200, "GET", w.path(f.Href), "", ""); got.Body != u.content {
		t.Errorf("%d bytes come back, want %d as they were sent", len(got.Body), len(u.content))
	}
	if got := w.Want(206, "GET", w.path(f.Href), "", "", "Range", fmt.Sprintf("bytes=%d-%d", mib-2, mib+1)); got.Body != u.content[mib-2:mib+2] {
		t.Errorf("across two parts: %q", got.Body)
	}
	u.Want(404, "PUT", u.path(u.parts[0].URL), "", u.chunk(0))
	if a := u.commit(); a.Status != 404 {
		t.Errorf("a second commit: %d %s", a.Status, a.Body)
	}
}

// An upload belongs to its asset and to those who may change it, and ends.
func TestUploadsThatComeToNothing(t *testing.T) {
	w := start(t)
	w.empty("firmware")
	w.empty("other")
	u := w.begin("firmware", large())
	begin := `{"asset":{"filename":"x","content_type":"","size":5,"chunk_size":5}}`
	w.Want(401, "POST", u.asset+"/beginUpload", w.BobSession, begin)
	w.Want(401, "POST", u.asset+"/beginUpload", "", begin)
	w.Want(400, "POST", "/v7/release_asset/beginUpload", w.AdminSession, begin)
	for body, status := range map[string]int{
		`{"asset":{"size":0,"chunk_size":5}}`: 400, `{"asset":{"size":5,"chunk_size":0}}`: 400, `{"asset":{"size":8000000,"chunk_size":1}}`: 400,
		`{"asset":{"size":99999999,"chunk_size":5000000}}`: 413, `{}`: 400,
	} {
		w.Want(status, "POST", u.asset+"/beginUpload", w.AdminSession, body)
	}
	for i := range u.parts {
		u.send(i)
	}
	mine := u.asset
	u.asset = strings.Replace(mine, "firmware", "other", 1)
	if a := u.commit(); a.Status != 404 {
		t.Errorf("a commit for another asset: %d %s", a.Status, a.Body)
	}
	w.Want(404, "POST", u.asset+"/cancelUpload", w.AdminSession, `{"uuid":"`+u.uuid+`"}`)
	u.asset = mine
	etag := u.etags[0]
	u.etags[0] = `"../../files/x"`
	if a := u.commit(); a.Status != 400 {
		t.Errorf("a commit with a strange ETag: %d %s", a.Status, a.Body)
	}
	u.etags[0] = etag
	w.Want(401, "POST", u.asset+"/cancelUpload", w.BobSession, `{"uuid":"`+u.uuid+`"}`)
	w.Want(200, "POST", u.asset+"/cancelUpload", w.AdminSession, `{"uuid":"`+u.uuid+`"}`)
	if a := u.commit(); a.Status != 404 {
		t.Errorf("a commit after it was cancelled: %d %s", a.Status, a.Body)
	}

	u = w.begin("firmware", large())
	u.send(0)
	w.clock = w.clock.Add(25 * time.Hour)
	session, err := w.Auth.NewSession(w.Admin)
	must(err)
	w.AdminSession = session
	u.Want(404, "PUT", u.path(u.parts[1].URL), "", u.chunk(1))
	if files, uploads := w.kept(); files != 0 || uploads != 0 {
		t.Errorf("%d files and %d uploads are kept of one that expired", files, uploads)
	}
	if f := w.shown("firmware"); f != nil {
		t.Errorf("the asset has the file %+v", f)
	}
}

// The database of another cloud needs nothing of what is here: nothing is removed.
func TestTheFolderOfAnotherCloud(t *testing.T) {
	w, other := start(t), start(t)
	w.add("notes", "hello")
	w.kept()
	wrong, err := asset.New(asset.Config{Dir: w.dir, Bucket: w.bucket, DB: other.DB})
	must(err)
	if _, err := wrong.Collect(t.Context(), -time.Hour); err == nil || !strings.Contains(err.Error(), "another cloud") {
		t.Errorf("clearing up: %v", err)
	}
	w.Want(200, "GET", w.path(w.shown("notes").Href), "", "")
}

// Servers share what they store: with a bucket they have no folder in common.
func TestTwoServers(t *testing.T) {
	w := start(t)
	w.add("notes", "hello")
	dir := w.dir
	if w.bucket != nil {
		dir = t.TempDir()
	}
	other, err := asset.New(asset.Config{Dir: dir, Bucket: w.bucket, DB: w.DB})
	must(err)
	mux := http.NewServeMux()
	other.Routes(mux)
	got := httptest.NewRecorder()
	mux.ServeHTTP(got, httptest.NewRequest("GET", w.path(w.shown("notes").Href), nil))
	if got.Code != 200 || got.Body.String() != "hello" {
		t.Errorf("the other server has %d %q", got.Code, got.Body)
	}
	w.empty("firmware")
	u := w.begin("firmware", large())
	for i := range u.parts {
		if i == 1 {
			sent := httptest.NewRecorder()
			mux.ServeHTTP(sent, httptest.NewRequest("PUT", u.path(u.parts[i].URL), strings.NewReader(u.chunk(i))))
			u.etags[i] = sent.Header().Get("ETag")
			continue
		}
		u.send(i)
	}
	if a := u.commit(); a.Status != 200 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	if _, err := other.Collect(t.Context(), -time.Hour); err != nil {
		t.Error(err)
	}
	if got := w.Want(200, "GET", w.path(w.shown("firmware").Href), "", ""); got.Body != u.content {
		t.Errorf("%d bytes come back of %d", len(got.Body), len(u.content))
	}
}
