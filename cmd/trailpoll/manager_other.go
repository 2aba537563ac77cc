//go:build !linux && !windows

package main

// manage runs the agent. The service managers of these systems watch the
// process and want to hear nothing of it.
func manage(r *runner) error {
	r.manager = nobody{}
	return r.run()
}
