package config

import (
	_ "embed"
	"strings"
)

//go:embed example.toml
var example string

// exampleStateDir is what the embedded example says.
const exampleStateDir = `"/var/lib/trailpoll"`

// Example returns the documented configuration that ships. It shows every
// optional key with its default, and decodes to the defaults; samples, and
// keys that have no default, are commented out as #key.
func Example() string {
	if strings.Contains(defaultStateDir, `\`) {
		return strings.Replace(example, exampleStateDir, "'"+defaultStateDir+"'", 1)
	}
	return example
}
