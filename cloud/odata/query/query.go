// Package query is a request in the API's query language as a typed tree. Parsing
// makes it, older versions of the API rewrite it, compiling turns it into SQL.
package query

// Request is one request to a resource.
type Request struct {
	Resource string
	Key      []KeyPart // empty: the collection; one part without a name: the id
	Action   string    // of "resource(key)/action"; empty: none
	Count    bool      // "resource/$count"
	Options  Options
	// ReturnResource is false when the answer to a POST shall be the id alone.
	ReturnResource bool
}

// KeyPart is one field of a natural key.
type KeyPart struct {
	Name  string // empty: the id
	Value Literal
}

// Options are those of a request or of one expansion.
type Options struct {
	Select  []string // fields; nil: all own ones
	Expand  []Expand
	Filter  Expr // nil: none
	OrderBy []Order
	Top     *int64
	Skip    *int64
}

// Expand asks for the rows behind a navigation.
type Expand struct {
	Nav     string
	Count   bool // "nav/$count": only how many
	Options Options
}

// Order is one term of $orderby.
type Order struct {
	By         Expr // Path or Count
	Descending bool
}

// Expr is an expression of a filter.
//
//sumtype:decl
type Expr interface{ expr() }

type (
	// Binary joins two expressions.
	Binary struct {
		Op          Op
		Left, Right Expr
	}
	// Not is true where X is not.
	Not struct{ X Expr }
	// In is true where X is one of the values, of which there is at least one.
	In struct {
		X      Expr
		Values []Literal
	}
	// Call is a function of its arguments, by its name in the language.
	Call struct {
		Name string
		Args []Expr
	}
	// Lambda is true when the body is, for some or for all rows behind a path.
	Lambda struct {
		Path Path
		All  bool
		Var  string
		Body Expr // nil: "any()", there is a row
	}
	// Path leads over navigations to a field, or to a row when it ends with a
	// navigation. Its first segment may be the variable of a lambda around it.
	Path struct{ Segments []string }
	// Count is the number of rows behind a path.
	Count struct {
		Path   Path
		Filter Expr // nil: all
	}
	// Literal is a value: nil, bool, int64, float64, string or time.Time.
	Literal struct{ Value any }
)

func (Binary) expr()  {}
func (Not) expr()     {}
func (In) expr()      {}
func (Call) expr()    {}
func (Lambda) expr()  {}
func (Path) expr()    {}
func (Count) expr()   {}
func (Literal) expr() {}

// Op is an operator between two expressions, as the language writes it.
type Op string

// The operators.
const (
	And Op = "and"
	Or  Op = "or"
	Eq  Op = "eq"
	Ne  Op = "ne"
	Gt  Op = "gt"
	Ge  Op = "ge"
	Lt  Op = "lt"
	Le  Op = "le"
	Add Op = "add"
	Sub Op = "sub"
	Mul Op = "mul"
	Div Op = "div"
	Mod Op = "mod"
)
