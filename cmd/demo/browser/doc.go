// Package browser has the tests of the status page in a real browser. It is
// a module of its own, so that what drives the browser stays out of the
// product's dependencies.
package browser
