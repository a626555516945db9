package odata

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"

	"deckhand/cloud/access"
	"deckhand/cloud/answer"
	"deckhand/cloud/asset"
	"deckhand/cloud/model"
	"deckhand/cloud/versions"
)

// maxFormField is the length in bytes of a field of a form that is no file.
const maxFormField = 64 << 10

// body reads the fields of a request and, from a form, the file of an asset. The
// file is stored already: somebody must be given it, or it is discarded.
func (o *OData) body(c *change) (versions.Fields, *model.AssetFile, error) {
	kind, _, err := mime.ParseMediaType(c.http.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		fields := versions.Fields{}
		return fields, nil, answer.Decode(c.http, &fields)
	}
	switch {
	case c.current() != "release_asset" || o.assets == nil:
		return nil, nil, &answer.BodyError{Status: http.StatusUnsupportedMediaType, Reason: "Only the asset of a release_asset comes as multipart/form-data; send JSON."}
	case c.http.Header.Get("Content-Encoding") != "":
		return nil, nil, &answer.BodyError{Status: http.StatusUnsupportedMediaType, Reason: "A form with a file must not be compressed."}
	case c.http.Method != http.MethodPost && len(c.Key) == 0:
		return nil, nil, refuse("A file belongs to one release_asset: name it by its key.")
	}
	fields, file, err := o.form(c.http)
	if err != nil && file != nil {
		err = errors.Join(err, o.assets.Discard(*file))
	}
	return fields, file, err
}

// form reads a form. A file may come back with an error.
func (o *OData) form(r *http.Request) (fields versions.Fields, file *model.AssetFile, err error) {
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, nil, refuse("The form cannot be read: %v.", err)
	}
	fields = versions.Fields{}
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return fields, file, nil
		}
		if err != nil {
			return nil, file, refuse("The form cannot be read: %v.", err)
		}
		switch {
		case part.FormName() != "asset":
			err = formField(fields, part)
		case file != nil:
			err = refuse("The form has more than one asset.")
		default:
			var stored model.AssetFile
			stored, err = o.assets.Receive(part, part.FileName(), part.Header.Get("Content-Type"))
			file = &stored
		}
		if err != nil {
			return nil, file, err
		}
	}
}

// formField reads a field as JSON has it.
func formField(fields versions.Fields, part *multipart.Part) error {
	b, err := io.ReadAll(io.LimitReader(part, maxFormField+1))
	if err != nil {
		return refuse("The form cannot be read: %v.", err)
	}
	if len(b) > maxFormField {
		return refuse("%s has more than %d bytes.", part.FormName(), maxFormField)
	}
	fields[part.FormName()], err = json.Marshal(string(b))
	return err
}

// unwanted discards a file that no row was given, and passes the error on.
func (o *OData) unwanted(v model.Values, err error) error {
	if file, ok := v["asset"].(model.AssetFile); ok {
		err = errors.Join(err, o.assets.Discard(file))
	}
	return err
}

// uploads are the actions for files that come in parts.
var uploads = map[string]func(*OData, *change, model.Selection) (any, error){
	"beginUpload":  (*OData).beginUpload,
	"commitUpload": (*OData).commitUpload,
	"cancelUpload": (*OData).cancelUpload,
}

// upload runs one of them, for an asset that the caller may change.
func (o *OData) upload(c *change, do func(*OData, *change, model.Selection) (any, error)) (int, []byte, error) {
	if o.assets == nil || len(c.Key) == 0 {
		return 0, nil, refuse("%s needs the key of a release_asset.", c.Action)
	}
	where, err := o.selected(c, access.Update)
	if err != nil {
		return 0, nil, err
	}
	shown, err := do(o, c, where)
	if err != nil || shown == nil {
		return http.StatusOK, nil, err
	}
	body, err := answer.Marshal(shown)
	return http.StatusOK, body, err
}

func (o *OData) beginUpload(c *change, where model.Selection) (any, error) {
	var body struct {
		Asset asset.NewUpload `json:"asset"`
	}
	if err := answer.Decode(c.http, &body); err != nil {
		return nil, err
	}
	begun, err := o.assets.Begin(c.http.Context(), where, body.Asset)
	return map[string]asset.Upload{"asset": begun}, err
}

func (o *OData) commitUpload(c *change, where model.Selection) (any, error) {
	var body struct {
		UUID string `json:"uuid"`
		Data struct {
			Parts []asset.Sent
		} `json:"providerCommitData"`
	}
	if err := answer.Decode(c.http, &body); err != nil {
		return nil, err
	}
	if err := o.assets.Commit(c.http.Context(), c.caller, where, body.UUID, body.Data.Parts); err != nil {
		return nil, err
	}
	f := model.Field{Name: "asset", Kind: model.File}
	rows, err := o.db.Rows(c.http.Context(), c.resource, []model.Field{f}, "WHERE "+where.SQL, where.Args...)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return shown(f, rows[0][0]), nil
}

func (o *OData) cancelUpload(c *change, where model.Selection) (any, error) {
	var body struct {
		UUID string `json:"uuid"`
	}
	if err := answer.Decode(c.http, &body); err != nil {
		return nil, err
	}
	return nil, o.assets.Cancel(c.http.Context(), where, body.UUID)
}
