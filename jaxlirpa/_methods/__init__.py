"""The named methods: each a short composition of a graph, domains and sets."""
