package engine_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// atEnd is what tests leave to be done after the last of them.
var atEnd []func()

func TestMain(m *testing.M) {
	code := m.Run()
	for _, f := range atEnd {
		f()
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
