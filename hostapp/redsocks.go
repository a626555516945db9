package hostapp

import (
	"cmp"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
)

// Option is one line of a block of redsocks.conf.
type Option struct{ Key, Value string }

// Redsocks is what redsocks.conf says of the proxy through which the host sends
// everything. Unwritten lines are always the same.
type Redsocks struct {
	Options []Option // of the proxy, in the order of the file; see KnowsProxyOption
	DNS     string   // HOST:PORT that questions for names go to; empty: they do not go through the proxy
}

// DefaultDNS is asked where the proxy is to be used for DNS, and no server is named.
const DefaultDNS = "8.8.8.8:53"

// Those that the host fixes; nobody sees or changes them.
const (
	proxyAddress = "127.0.0.1"
	proxyPort    = "12345"
	dnsPort      = "53"
)

// KnowsProxyOption reports whether redsocks knows an option of the proxy, other
// than its own address. It refuses to start with any other one, and then the
// device is offline.
func KnowsProxyOption(key string) bool {
	switch key {
	case "type", "ip", "port", "login", "password",
		"listenq", "min_accept_backoff", "max_accept_backoff", "on_proxy_fail", "disclose_src", "splice", "timeout", "autoproxy":
		return true
	}
	return false
}

// quoted are the options whose value stands in quotes, and so may hold anything.
func quoted(key string) bool { return key == "login" || key == "password" }

// CheckProxyOption says what is wrong with a value; it never shows the value.
func CheckProxyOption(key, value string) error {
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%s must be one line", key)
	}
	if len(value) > 255 {
		return fmt.Errorf("%s must be at most 255 bytes", key)
	}
	if !quoted(key) && strings.ContainsAny(value, " \";{}") {
		return fmt.Errorf("%s must hold no space, quote, semicolon or brace", key)
	}
	return nil
}

// Get is the value of an option; empty when there is none.
func (r Redsocks) Get(key string) string {
	for _, o := range r.Options {
		if o.Key == key {
			return o.Value
		}
	}
	return ""
}

// With is the same with another value of an option; empty takes it away.
func (r Redsocks) With(key, value string) Redsocks {
	i := slices.IndexFunc(r.Options, func(o Option) bool { return o.Key == key })
	r.Options = slices.Clone(r.Options)
	switch {
	case i >= 0 && value == "":
		r.Options = slices.Delete(r.Options, i, i+1)
	case i >= 0:
		r.Options[i].Value = value
	case value != "":
		r.Options = append(r.Options, Option{key, value})
	}
	return r
}

// String is the file's content.
func (r Redsocks) String() string {
	var b strings.Builder
	block := func(label string, options ...Option) {
		if b.Len() > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%s {\n", label)
		for _, o := range options {
			if quoted(o.Key) {
				o.Value = `"` + o.Value + `"`
			}
			fmt.Fprintf(&b, "\t%s = %s;\n", o.Key, o.Value)
		}
		b.WriteString("}\n")
	}
	block("base", Option{"log_debug", "off"}, Option{"log_info", "on"}, Option{"log", "stderr"}, Option{"daemon", "off"}, Option{"redirector", "iptables"})
	block("redsocks", append(slices.Clone(r.Options), Option{"local_ip", proxyAddress}, Option{"local_port", proxyPort})...)
	if host, port, ok := splitDNS(r.DNS); ok {
		block("dnsu2t", Option{"remote_ip", host}, Option{"remote_port", port}, Option{"local_ip", proxyAddress}, Option{"local_port", dnsPort})
	}
	return b.String()
}

// CheckDNS says whether a text is HOST:PORT.
func CheckDNS(dns string) error {
	host, _, ok := splitDNS(dns)
	if !ok || len(dns) > 255 {
		return fmt.Errorf("dns must be true, false or ADDRESS:PORT")
	}
	return CheckProxyOption("dns", host)
}

var dnsForm = regexp.MustCompile(`^(.+):([0-9]+)$`)

// splitDNS splits at the last colon: IPv6 has more of them.
func splitDNS(dns string) (host, port string, ok bool) {
	m := dnsForm.FindStringSubmatch(dns)
	if m == nil {
		return "", "", false
	}
	host = m[1]
	if inner := strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"); net.ParseIP(inner) != nil {
		host = inner
	}
	return host, m[2], true
}

// ParseRedsocks reads redsocks.conf. What it cannot read, or redsocks does not
// know, is left out; bad says in which lines that was, without what they say.
func ParseRedsocks(text string) (r Redsocks, bad []string) {
	options, at := readBlock(text, "redsocks")
	bad = append(bad, at...)
	for _, o := range options {
		switch {
		case o.Key == "local_ip" || o.Key == "local_port":
		case !KnowsProxyOption(o.Key) || CheckProxyOption(o.Key, o.Value) != nil:
			bad = append(bad, "redsocks: "+oneLine(o.Key))
		default:
			r = r.With(o.Key, o.Value) // of a repeated one the last counts
		}
	}
	options, at = readBlock(text, "dnsu2t")
	bad = append(bad, at...)
	if len(options) > 0 {
		dns := Redsocks{Options: options}
		host, port, _ := splitDNS(DefaultDNS)
		name := cmp.Or(dns.Get("remote_ip"), host) + ":" + cmp.Or(dns.Get("remote_port"), port)
		if CheckDNS(name) == nil {
			host, port, _ = splitDNS(name)
			r.DNS = host + ":" + port
		} else {
			bad = append(bad, "dnsu2t: remote_ip")
		}
	}
	return r, bad
}

// readBlock reads the first block with a label.
func readBlock(text, label string) (options []Option, bad []string) {
	start := regexp.MustCompile(`(?m)^[ \t]*` + regexp.QuoteMeta(label) + `\s?\{`).FindStringIndex(text)
	if start == nil {
		return nil, nil
	}
	for i, line := range strings.Split(text[start[1]:], "\n") {
		line = strings.Trim(line, " \t\r")
		if strings.HasPrefix(line, "}") {
			break
		}
		if line == "" || strings.HasPrefix(line, "//") || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		value, last := readValue(key, strings.Trim(value, " \t"))
		if ok && key != "" {
			options = append(options, Option{key, value})
		} else {
			bad = append(bad, fmt.Sprintf("%s: line %d", label, i+1))
		}
		if last || !ok && strings.Contains(line, "}") {
			break
		}
	}
	return options, bad
}

var closing = regexp.MustCompile(`^;?\s*(\}?)`)

// readValue takes quotes and the end of the line off; last: the block ends here.
func readValue(key, text string) (value string, last bool) {
	if end := strings.LastIndex(text, `"`); quoted(key) && end > 0 && text[0] == '"' {
		rest := text[end+1:]
		if m := closing.FindStringSubmatch(rest); len(m[0]) == len(rest) {
			return text[1:end], m[1] != ""
		}
	}
	value, _, last = strings.Cut(text, "}")
	return strings.TrimRight(strings.TrimSuffix(strings.TrimRight(value, " \t"), ";"), " \t"), last
}
