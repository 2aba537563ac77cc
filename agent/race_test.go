//go:build race

package agent_test

// raced: the race detector makes everything ten times slower.
const raced = true
