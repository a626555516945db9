package main

import (
	"context"
	"flag"
)

func runCommand(*flag.FlagSet) func(context.Context, []string) error { return nil }
