package dashboard

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"deckhand/cloud/answer"
	"deckhand/cloud/auth"
)

// programPath is where balena's command line sends people with "login --web". The rest of
// the path is the URL, percent-encoded twice, at which it waits on their computer for a
// form with the token of a session.
const programPath = "/login/cli/"

// program is one that waits on the computer of the person who looks at the page.
type program struct {
	host     string // with the port
	callback string // URL
}

var errNotLocal = errors.New("the address to answer to is not one of this computer; start again with balena login --web")

// programAt is the program that waits at a URL. Only addresses of the person's own
// computer are taken: whoever gets the token acts as the person.
func programAt(callback string) (program, error) {
	u, err := url.Parse(callback)
	if err != nil || u.Scheme != "http" || u.User != nil || u.Opaque != "" || u.RawQuery != "" || u.Fragment != "" {
		return program{}, errNotLocal
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	ip, notIP := netip.ParseAddr(u.Hostname())
	// A content security policy knows no addresses of IPv6.
	if local := notIP == nil && ip.Is4() && ip.IsLoopback() || u.Hostname() == "localhost"; err != nil || port == 0 || !local {
		return program{}, errNotLocal
	}
	host := net.JoinHostPort(u.Hostname(), strconv.FormatUint(port, 10))
	return program{host: host, callback: (&url.URL{Scheme: "http", Host: host, Path: u.Path}).String()}, nil
}

// page is where the program's wish is shown.
func (p program) page() string { return programPath + url.PathEscape(url.PathEscape(p.callback)) }

// programOf is the program that a request is about. One whose address is not taken is
// answered here.
func (d *Dashboard) programOf(w http.ResponseWriter, r *http.Request) (program, bool) {
	callback, err := url.PathUnescape(r.PathValue("callback"))
	if err == nil {
		var p program
		if p, err = programAt(callback); err == nil {
			return p, true
		}
	}
	d.render(w, r, http.StatusBadRequest, "program.html", programView{Problem: errNotLocal.Error()})
	return program{}, false
}

type programView struct {
	User, Program string
	Page          string // where the person agrees
	Callback      string // where the token goes
	Token         string // only once the person has agreed
	Problem       string
}

// person is who is logged in. Who is not gets the login, and with it the way back here.
func (d *Dashboard) person(w http.ResponseWriter, r *http.Request, p program) (auth.Actor, bool) {
	actor, err := d.session(r)
	if err == nil && actor.Key {
		err = auth.ErrUnauthenticated
	}
	tooMany, refused := errors.AsType[*auth.TooManyAttempts](err)
	switch {
	case err == nil:
		return actor, true
	case errors.Is(err, auth.ErrUnauthenticated):
		d.render(w, r, http.StatusOK, "login.html", loginView{Callback: p.callback})
	case refused:
		d.tooMany(w, r, "", tooMany)
	default:
		answer.Failure(w, r, err)
	}
	return auth.Actor{}, false
}

// askForProgram shows who asks to be let in, and for what.
func (d *Dashboard) askForProgram(w http.ResponseWriter, r *http.Request) {
	protect(w)
	p, ok := d.programOf(w, r)
	if !ok {
		return
	}
	if actor, ok := d.person(w, r, p); ok {
		d.render(w, r, http.StatusOK, "program.html", programView{User: actor.Name, Program: p.host, Page: p.page()})
	}
}

// authorise makes a session for the program, and has the browser bring it there.
func (d *Dashboard) authorise(w http.ResponseWriter, r *http.Request) {
	protect(w)
	p, ok := d.programOf(w, r)
	if !ok {
		return
	}
	actor, ok := d.person(w, r, p)
	if !ok {
		return
	}
	token, err := d.auth.AnotherSession(r.Context(), actor)
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	protectBut(w, strings.Replace(policy, "form-action 'self'", "form-action http://"+p.host, 1))
	d.render(w, r, http.StatusOK, "program.html", programView{User: actor.Name, Program: p.host, Callback: p.callback, Token: token})
}
