//go:build !man

package main

import (
	"context"
	"io"
	"log"
	"os"
)

func main() {
	// What libraries print quotes what servers say; an agent's log takes it, less that.
	log.SetOutput(io.Discard)
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
