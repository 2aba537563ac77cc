module github.com/trailpoll/trailpoll/cmd/demo/browser

go 1.26.0

require (
	github.com/chromedp/cdproto v0.159.0
	github.com/chromedp/chromedp v0.22.1
	github.com/trailpoll/trailpoll v0.0.0
)

require (
	github.com/go-json-experiment/json v0.0.0-20260820222146-c27c302e5fc3 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
)

replace github.com/trailpoll/trailpoll => ../../..
