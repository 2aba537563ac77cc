package main

import (
	"os"
	"regexp"
	"runtime"
	"strings"
)

// machine is what the figures were measured on.
type machine struct {
	CPU      string `json:"cpu"`
	CPUs     int    `json:"cpus"` // that the program may use
	Platform string `json:"platform"`
	Go       string `json:"go"`
	Load     string `json:"load"` // load average before the first run; "unknown" where there is none
}

var modelName = regexp.MustCompile(`(?m)^model name\s*:\s*(.+)$`)

func thisMachine() machine {
	m := machine{
		CPU: "unknown CPU", CPUs: runtime.GOMAXPROCS(0), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Go: runtime.Version(), Load: "unknown",
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if found := modelName.FindSubmatch(b); found != nil {
			m.CPU = string(found[1])
		}
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load, _, _ = strings.Cut(string(b), " ")
	}
	return m
}
