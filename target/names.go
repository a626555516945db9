package target

import "strings"

// The characters that names may consist of.

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func digit(c byte) bool  { return c >= '0' && c <= '9' }

// every reports whether s is not empty and first and rest hold for its bytes.
func every(s string, first, rest func(byte) bool) bool {
	if s == "" || !first(s[0]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		if !rest(s[i]) {
			return false
		}
	}
	return true
}

func isVariable(s string) bool {
	return every(s, func(c byte) bool { return letter(c) || c == '_' },
		func(c byte) bool { return letter(c) || digit(c) || c == '_' })
}

func isConfigVariable(s string) bool {
	return every(s, func(c byte) bool { return letter(c) || c == '_' },
		func(c byte) bool { return letter(c) || digit(c) || c == '_' || c == ':' })
}

func isLabel(s string) bool {
	ok := func(c byte) bool { return c > ' ' && c < 0x7f && !strings.ContainsRune("\"'`", rune(c)) }
	return every(s, ok, ok)
}

// isDockerName is for services, volumes and networks, and for all that becomes
// part of an engine name.
func isDockerName(s string) bool {
	alnum := func(c byte) bool { return letter(c) || digit(c) }
	return every(s, alnum, func(c byte) bool { return alnum(c) || c == '_' || c == '.' || c == '-' })
}
