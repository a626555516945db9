// Package auth says who sends a request and what they may do: sessions, API
// keys, passwords, and the tokens of the embedded registry.
//
// Secrets made here live in one folder with mode 0600: the key that signs
// sessions and the key pair that signs registry tokens.
package auth
