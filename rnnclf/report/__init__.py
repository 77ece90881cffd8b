"""Pictures of results, and the page that `rnnclf report` writes: from plain data to SVG, PNG and HTML."""
