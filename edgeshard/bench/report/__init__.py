"""Report a run: Markdown tables on the terminal, an HTML page with plots, and a JSON file that can be loaded again.

Each module imports only from those above it in this list:

tables       heads and cells of all tables, for Markdown and HTML alike
markdown     the printed report
plots        SVG plots
html         the HTML page
json_file    save and load a run
files        write a file atomically
"""
