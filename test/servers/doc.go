// Package servers tests several deckhand-cloud processes on one PostgreSQL: what is
// done at one is seen at the others, one that is killed is not missed, and a database
// that goes away and comes back.
package servers
