"""Report a run: Markdown tables on the terminal, an HTML page with plots, and a JSON file that can be loaded again.

Each module imports only from those above it in this list:

tables            heads and cells of all tables, for Markdown and HTML alike
goals_table       the goals, and whether they are reached
verdict           what a run asks, and the answer in a sentence or two
markdown          the printed report
comparison_table  how a run compares with an earlier one
plots             SVG plots
html              the HTML page
front_page        the table and the plot of the README
json_file         save and load a run
files             write a file atomically
"""
