package query

// Limits of one request. They are far above what clients send, and keep a
// stranger from making the cloud work for minutes.
const (
	MaxLength      = 256 << 10 // bytes of path and query string, as sent
	MaxDepth       = 50        // parentheses, functions and lambdas in each other
	MaxTerms       = 10_000    // parts of all expressions together
	MaxExpandDepth = 10        // expansions in each other
	MaxExpands     = 100       // expansions together
)
