package main

import "os"

// terminate ends a program: Windows has no signal that asks for it.
func terminate(p *os.Process) error { return p.Kill() }
