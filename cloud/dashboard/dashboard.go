package dashboard

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	"deckhand/cloud/answer"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
)

//go:embed templates static
var files embed.FS

// Config is what the page needs.
type Config struct {
	DB   *model.DB
	Auth *auth.Auth
	// Secure marks the session cookie for HTTPS only.
	Secure bool
}

// Dashboard serves the page.
type Dashboard struct {
	db       *model.DB
	auth     *auth.Auth
	secure   bool
	page     *template.Template
	static   map[string]asset
	sameSite *http.CrossOriginProtection
}

type asset struct {
	kind string
	body []byte
	etag string
}

// New parses the templates.
func New(cfg Config) (*Dashboard, error) {
	page, err := template.ParseFS(files, "templates/*.html")
	if err != nil {
		return nil, fmt.Errorf("read page templates: %w", err)
	}
	d := &Dashboard{db: cfg.DB, auth: cfg.Auth, secure: cfg.Secure, page: page, static: map[string]asset{}, sameSite: http.NewCrossOriginProtection()}
	for name, kind := range map[string]string{"page.css": "text/css; charset=utf-8", "live.js": "text/javascript; charset=utf-8", "deliver.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"} {
		body, err := fs.ReadFile(files, "static/"+name)
		if err != nil {
			return nil, fmt.Errorf("read page files: %w", err)
		}
		sum := sha256.Sum256(body)
		d.static[name] = asset{kind, body, `"` + hex.EncodeToString(sum[:8]) + `"`}
	}
	return d, nil
}

// Routes adds the routes to the mux.
func (d *Dashboard) Routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /{$}", d.index)
	mux.Handle("POST /login", d.sameSite.Handler(http.HandlerFunc(d.login)))
	mux.Handle("POST /logout", d.sameSite.Handler(http.HandlerFunc(d.logout)))
	mux.HandleFunc("GET "+programPath+"{callback...}", d.askForProgram)
	mux.Handle("POST "+programPath+"{callback...}", d.sameSite.Handler(http.HandlerFunc(d.authorise)))
	mux.HandleFunc("GET /live", d.live)
	mux.HandleFunc("GET /static/{name}", d.file)
}

const cookieName = "deckhand_session"

// policy lets the page use its own files and nothing else.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

func protect(w http.ResponseWriter) { protectBut(w, policy) }

func protectBut(w http.ResponseWriter, policy string) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
}

// session is who looks at the page. Only the cookie counts: a key in an
// address would end up in the history of the browser.
func (d *Dashboard) session(r *http.Request) (auth.Actor, error) {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return auth.Actor{}, auth.ErrUnauthenticated
	}
	actor, err := d.auth.Identify(r.Context(), cookie.Value)
	if err == nil && actor.Kind != auth.User {
		return auth.Actor{}, auth.ErrUnauthenticated
	}
	return actor, err
}

func (d *Dashboard) index(w http.ResponseWriter, r *http.Request) {
	protect(w)
	actor, err := d.session(r)
	if errors.Is(err, auth.ErrUnauthenticated) {
		d.render(w, r, http.StatusOK, "login.html", loginView{})
		return
	}
	if tooMany, ok := errors.AsType[*auth.TooManyAttempts](err); ok {
		d.tooMany(w, r, "", tooMany)
		return
	}
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	view, err := d.view(r.Context(), actor)
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	d.render(w, r, http.StatusOK, "page.html", view)
}

// tooMany refuses for a while who, or whose network, sent too much that is wrong.
func (d *Dashboard) tooMany(w http.ResponseWriter, r *http.Request, username string, e *auth.TooManyAttempts) {
	w.Header().Set("Retry-After", strconv.Itoa(int(e.Wait/time.Second)+1))
	d.render(w, r, http.StatusTooManyRequests, "login.html", loginView{Username: username, Problem: e.Error(), Callback: r.PostFormValue("callback")})
}

type loginView struct {
	Username, Problem string
	Callback          string // of the program that waits; empty: none does
}

func (d *Dashboard) login(w http.ResponseWriter, r *http.Request) {
	protect(w)
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	username := strings.TrimSpace(r.PostFormValue("username"))
	u, err := d.auth.Login(r.Context(), username, r.PostFormValue("password"), auth.ClientAddress(r))
	if tooMany, ok := errors.AsType[*auth.TooManyAttempts](err); ok {
		d.tooMany(w, r, username, tooMany)
		return
	}
	if errors.Is(err, auth.ErrUnauthenticated) {
		d.render(w, r, http.StatusUnauthorized, "login.html", loginView{Callback: r.PostFormValue("callback"), Username: username, Problem: "User name and password do not match. A lost password is replaced by “deckhand-cloud user reset-password”."})
		return
	}
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	token, err := d.auth.NewSession(u)
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	http.SetCookie(w, d.cookie(token, 7*24*3600))
	next := "/"
	if p, err := programAt(r.PostFormValue("callback")); err == nil {
		next = p.page()
	}
	http.Redirect(w, r, next, http.StatusSeeOther)
}

func (d *Dashboard) logout(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, d.cookie("", -1))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (d *Dashboard) cookie(value string, age int) *http.Cookie {
	return &http.Cookie{Name: cookieName, Value: value, Path: "/", MaxAge: age, HttpOnly: true, Secure: d.secure, SameSite: http.SameSiteStrictMode}
}

func (d *Dashboard) render(w http.ResponseWriter, r *http.Request, status int, name string, view any) {
	var b bytes.Buffer
	if err := d.page.ExecuteTemplate(&b, name, view); err != nil {
		answer.Failure(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(b.Bytes()) //nolint:errcheck // the client is gone
}

func (d *Dashboard) file(w http.ResponseWriter, r *http.Request) {
	file, ok := d.static[r.PathValue("name")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	protect(w)
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("ETag", file.etag)
	if r.Header.Get("If-None-Match") == file.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", file.kind)
	w.Write(file.body) //nolint:errcheck // the client is gone
}

const (
	// settle is how long changes are collected before they are shown.
	settle = 150 * time.Millisecond
	// stillThere is how often a quiet stream says that it lives.
	stillThere = 20 * time.Second
)

// live sends the page's content whenever it changed.
func (d *Dashboard) live(w http.ResponseWriter, r *http.Request) {
	protect(w)
	changes := d.db.Changes().Watch(model.OverviewTopic())
	defer changes.Stop()
	control := http.NewResponseController(w)
	control.SetReadDeadline(time.Time{}) //nolint:errcheck // a recorder has no deadlines
	w.Header().Set("Content-Type", "text/event-stream")
	ticker := time.NewTicker(stillThere)
	defer ticker.Stop()
	var last string
	for {
		// Asked every time: a stream must not outlive its session.
		content, err := d.content(r)
		if errors.Is(err, auth.ErrUnauthenticated) {
			if last == "" {
				answer.Empty(w, http.StatusUnauthorized)
				return
			}
			content = "" // the script loads the page again and finds the login
		} else if err != nil {
			return // the browser connects again
		}
		control.SetWriteDeadline(time.Now().Add(stillThere)) //nolint:errcheck // a recorder has no deadlines
		if err := send(w, content, last); err != nil || control.Flush() != nil || content == "" {
			return
		}
		last = content
		select {
		case <-changes.C():
			select {
			case <-time.After(settle):
			case <-r.Context().Done():
				return
			}
		case <-ticker.C:
		case <-r.Context().Done():
			return
		}
	}
}

// send writes one event, or a comment when there is nothing new.
func send(w http.ResponseWriter, content, last string) error {
	message := ": still there\n\n"
	switch content {
	case last:
	case "":
		message = "event: end\ndata: -\n\n"
	default:
		message = "event: content\ndata: " + strings.ReplaceAll(content, "\n", "\ndata: ") + "\n\n"
	}
	_, err := w.Write([]byte(message))
	return err
}

func (d *Dashboard) content(r *http.Request) (string, error) {
	actor, err := d.session(r)
	if err != nil {
		return "", err
	}
	view, err := d.view(r.Context(), actor)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := d.page.ExecuteTemplate(&b, "content.html", view); err != nil {
		return "", fmt.Errorf("render page: %w", err)
	}
	return b.String(), nil
}

func (d *Dashboard) view(ctx context.Context, actor auth.Actor) (pageView, error) {
	fleets, err := d.db.Overview(ctx, actor.ID)
	if err != nil {
		return pageView{}, fmt.Errorf("read overview: %w", err)
	}
	return newPage(actor.Name, fleets), nil
}
