CELLS = ["""import plotly.graph_objects as go
class Late(go.FigureWidget):
    ready = False
    def open(self):
        if self.ready: super().open()
def make():
    f = Late([go.Scatter(x=[1,2],y=[3,4]), go.Scatter(x=[1,2],y=[4,4])])
    f._config = {'displaylogo': False, 'showSendToCloud': False}
    f.ready = True
    f.open()
    return f""",
 "a = make(); a",
 "b = make(); b",
 "c = make()\nwith c.batch_update():\n    c.data[0].x = [5, 6]\nc",
 "d = make()\nwith d.batch_update():\n    d.data[0].x = [5, 6]\nd",
 "e = go.FigureWidget([go.Scatter(x=[1,2],y=[3,4])]); e"]
def test_dbg(open_notebook):
    nb = open_notebook(CELLS, 'dbg.ipynb')
    print('FAIL', nb.failures())
    nb.page.wait_for_timeout(15000)
    print(nb.page.evaluate("""() => [...document.querySelectorAll('.js-plotly-plot')].map(g => [g.className, (g._fullData||[]).length, (g.data||[]).map(t=>t.x),
           g._context && g._context.showSendToCloud, g._context && g._context.displaylogo])"""))
    nb.run("d.data[1].x = [7, 8]")
    nb.page.wait_for_timeout(2000)
    print(nb.page.evaluate("() => [...document.querySelectorAll('.js-plotly-plot')].map(g => (g.data||[]).map(t=>t.x))"))
    print(nb.problems())
    assert 0
