// Command sbom prints the bill of materials of a Go program, in CycloneDX 1.6:
// what the linker noted in the program itself, and so what is really in it.
//
//	sbom PROGRAM VERSION >sbom.cdx.json
package main

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"
)

type component struct {
	Type    string `json:"type"`
	Ref     string `json:"bom-ref"`
	Name    string `json:"name"`
	Version string `json:"version"`
	PURL    string `json:"purl"`
}

type dependency struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn,omitempty"`
}

type bill struct {
	Format       string       `json:"bomFormat"`
	Spec         string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: sbom PROGRAM VERSION")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Getenv("SOURCE_DATE_EPOCH"), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(program, version, epoch string, out io.Writer) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	var seconds int64
	if _, err := fmt.Sscan(epoch, &seconds); err != nil {
		return fmt.Errorf("reading SOURCE_DATE_EPOCH: %w", err)
	}
	e := json.NewEncoder(out)
	e.SetIndent("", " ")
	return e.Encode(billOf(info, version, time.Unix(seconds, 0)))
}

// billOf lists the modules that are in a program, and the Go version.
func billOf(info *buildinfo.BuildInfo, version string, at time.Time) bill {
	main := library(&debug.Module{Path: info.Main.Path, Version: version})
	main.Type = "application"
	b := bill{
		Format: "CycloneDX", Spec: "1.6", Version: 1,
		Metadata: metadata{Timestamp: at.UTC().Format(time.RFC3339), Component: main},
	}
	all := dependency{Ref: main.Ref}
	add := func(c component) {
		b.Components = append(b.Components, c)
		all.On = append(all.On, c.Ref)
	}
	add(library(&debug.Module{Path: "std", Version: info.GoVersion}))
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		add(library(m))
	}
	b.Dependencies = []dependency{all}
	return b
}

func library(m *debug.Module) component {
	purl := "pkg:golang/" + m.Path + "@" + m.Version
	return component{Type: "library", Ref: purl, Name: m.Path, Version: m.Version, PURL: purl}
}
