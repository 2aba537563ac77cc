// Package runtest builds the real program, runs it, and sees what it does: its
// log, its memory, its open files, how it ends. It is for tests of the whole,
// on Linux.
package runtest
